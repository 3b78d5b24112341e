#include "whence/models/exported/detail/operators.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "whence/core/error.h"
#include "whence/models/exported/detail/program.h"

namespace whence::detail {
namespace {

using Values = std::vector<c10::IValue>;

[[noreturn]] void throw_size() { throw InvalidArgument("a size that is too large, or divided by 0"); }

std::int64_t checked_whole(double x) {
  constexpr double kMost = 9e18;
  if (!(std::abs(x) < kMost)) {
    throw_size();
  }
  return static_cast<std::int64_t>(x);
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0 || (b == -1 && a == std::numeric_limits<std::int64_t>::min())) {
    throw_size();
  }
  const auto quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

/// f of two numbers, both whole or both as doubles.
template <class F>
c10::IValue of_two(const Values& x, const F& f) {
  const auto &a = x.at(0), &b = x.at(1);
  if (a.isDouble() || b.isDouble()) {
    return f(a.toScalar().toDouble(), b.toScalar().toDouble());
  }
  return f(a.toScalar().toLong(), b.toScalar().toLong());
}

enum class Sum { kAdd, kSubtract, kMultiply };

/// Their sum, difference or product.
template <Sum sum>
c10::IValue arithmetic(const Values& x) {
  const auto &a = x.at(0), &b = x.at(1);
  if (a.isDouble() || b.isDouble()) {
    const auto c = a.toScalar().toDouble(), d = b.toScalar().toDouble();
    return sum == Sum::kAdd ? c + d : sum == Sum::kSubtract ? c - d : c * d;
  }
  const auto c = a.toScalar().toLong(), d = b.toScalar().toLong();
  std::int64_t out = 0;
  const bool over = sum == Sum::kAdd        ? __builtin_add_overflow(c, d, &out)
                    : sum == Sum::kSubtract ? __builtin_sub_overflow(c, d, &out)
                                            : __builtin_mul_overflow(c, d, &out);
  if (over) {
    throw_size();
  }
  return out;
}

c10::IValue power(const Values& x) {
  const auto &a = x.at(0), &b = x.at(1);
  if (a.isDouble() || b.isDouble() || b.toScalar().toLong() < 0) {
    return std::pow(a.toScalar().toDouble(), b.toScalar().toDouble());
  }
  std::int64_t out = 1;
  for (std::int64_t i = 0; i < std::min<std::int64_t>(b.toScalar().toLong(), 64); ++i) {
    if (__builtin_mul_overflow(out, a.toScalar().toLong(), &out)) {
      throw_size();
    }
  }
  return out;
}

bool truth(const c10::IValue& x) { return x.toScalar().toBool(); }

}  // namespace

std::function<c10::IValue(const Values&)> size_arithmetic(const std::string& target) {
  using Function = std::function<c10::IValue(const Values&)>;
  static const std::map<std::string, Function> known = {
      {"_operator.add", arithmetic<Sum::kAdd>},
      {"_operator.sub", arithmetic<Sum::kSubtract>},
      {"_operator.mul", arithmetic<Sum::kMultiply>},
      {"_operator.floordiv",
       [](const Values& x) -> c10::IValue {
         if (x.at(0).isDouble() || x.at(1).isDouble()) {
           return std::floor(x[0].toScalar().toDouble() / x[1].toScalar().toDouble());
         }
         return floor_divide(x[0].toScalar().toLong(), x[1].toScalar().toLong());
       }},
      {"_operator.mod",
       [](const Values& x) -> c10::IValue {
         const auto a = x.at(0).toScalar().toLong(), b = x.at(1).toScalar().toLong();
         return a - floor_divide(a, b) * b;
       }},
      {"_operator.truediv",
       [](const Values& x) -> c10::IValue { return x.at(0).toScalar().toDouble() / x.at(1).toScalar().toDouble(); }},
      {"_operator.pow", power},
      {"torch.sym_sqrt", [](const Values& x) -> c10::IValue { return std::sqrt(x.at(0).toScalar().toDouble()); }},
      {"_operator.neg",
       [](const Values& x) -> c10::IValue {
         return x.at(0).isDouble() ? c10::IValue(-x[0].toDouble())
                                   : arithmetic<Sum::kSubtract>({std::int64_t{0}, x[0].toScalar().toLong()});
       }},
      {"_operator.pos", [](const Values& x) { return x.at(0); }},
      {"_operator.eq", [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(a == b); }); }},
      {"_operator.ne", [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(a != b); }); }},
      {"_operator.lt", [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(a < b); }); }},
      {"_operator.le", [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(a <= b); }); }},
      {"_operator.gt", [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(a > b); }); }},
      {"_operator.ge", [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(a >= b); }); }},
      {"_operator.and_", [](const Values& x) -> c10::IValue { return truth(x.at(0)) && truth(x.at(1)); }},
      {"_operator.or_", [](const Values& x) -> c10::IValue { return truth(x.at(0)) || truth(x.at(1)); }},
      {"torch.sym_not", [](const Values& x) -> c10::IValue { return !truth(x.at(0)); }},
      {"torch.sym_max",
       [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(std::max(a, b)); }); }},
      {"torch.sym_min",
       [](const Values& x) { return of_two(x, [](auto a, auto b) { return c10::IValue(std::min(a, b)); }); }},
      {"torch.sym_ite", [](const Values& x) { return truth(x.at(0)) ? x.at(1) : x.at(2); }},
      {"torch.sym_int", [](const Values& x) -> c10::IValue { return checked_whole(x.at(0).toScalar().toDouble()); }},
      {"torch.sym_float", [](const Values& x) -> c10::IValue { return x.at(0).toScalar().toDouble(); }},
      {"math.trunc", [](const Values& x) -> c10::IValue { return checked_whole(x.at(0).toScalar().toDouble()); }},
  };
  const auto found = known.find(target);
  return found == known.end() ? Function() : found->second;
}

bool is_allowed(const std::string& name) {
  // names with an underscore in front are torch's inner ones, which may take their indices on trust
  static const std::set<std::string> inner = {"__and__",
                                              "__or__",
                                              "__xor__",
                                              "_softmax",
                                              "_log_softmax",
                                              "_to_copy",
                                              "_unsafe_view",
                                              "_native_batch_norm_legit_no_training",
                                              "_scaled_dot_product_attention_math",
                                              "_weight_norm",
                                              "_weight_norm_interface",
                                              "_convolution",
                                              "_adaptive_avg_pool2d",
                                              "_adaptive_avg_pool3d",
                                              "_fft_r2c",
                                              "_fft_c2r",
                                              "_fft_c2c",
                                              "_conj",
                                              "_neg_view",
                                              "_trilinear",
                                              "_shape_as_tensor",
                                              "_local_scalar_dense",
                                              "_upsample_bilinear2d_aa",
                                              "_upsample_bicubic2d_aa"};
  // and so may these: what a backward pass is made of, sparse indices, what is made for one library,
  // targets of a ctc loss; and what is empty holds what memory held before
  static constexpr std::string_view kTrusting[] = {"ctc_loss", "empty",   "new_empty",  "unsafe_", "sspaddmm",
                                                   "quantize", "sparse_", "mkldnn_",    "cudnn_",  "miopen_",
                                                   "mps_",     "fbgemm_", "batch_norm_"};
  static const std::set<std::string> refused = {"from_file",
                                                "record_stream",
                                                "set_",
                                                "set_data",
                                                "resize_",
                                                "resize_as_",
                                                "pin_memory",
                                                "retain_grad",
                                                "backward",
                                                "requires_grad_",
                                                "rename",
                                                "rename_",
                                                "output_nr",
                                                "segment_reduce",
                                                "to_mkldnn",
                                                "data",
                                                "set",
                                                "resize",
                                                "resize_as",
                                                "resize_as_sparse_",
                                                "resize_as_sparse",
                                                "native_batch_norm"};
  if (name.empty() || name.front() == '_') {
    return inner.count(name) > 0;
  }
  return refused.count(name) == 0 && name.find("_backward") == name.npos &&
         std::none_of(std::begin(kTrusting), std::end(kTrusting),
                      [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::string impurity(const Node& node) {
  const auto op = node.operation();
  const auto flag = [&](const char* name) -> std::optional<c10::IValue> {
    const auto place = node.argument(name);
    if (place < 0 || node.inputs[static_cast<std::size_t>(place)].slot() >= 0) {
      return std::nullopt;
    }
    return node.inputs[static_cast<std::size_t>(place)].constant();
  };
  const auto says = [&](const char* name) {
    const auto value = flag(name);
    return value && value->isBool() && value->toBool();
  };
  if (op.find("batch_norm") != op.npos && (says("training") || says("train"))) {
    return "is in training mode";
  }
  if (op == "instance_norm" && says("use_input_stats") && flag("running_mean") == std::nullopt) {
    return "is in training mode";
  }
  if (node.schema == nullptr) {
    return "";
  }
  const auto handle = c10::Dispatcher::singleton().findSchema({node.schema->name(), node.schema->overload_name()});
  const bool seeded =
      op.find("dropout") != op.npos || op == "rrelu" || (handle && handle->hasTag(at::Tag::nondeterministic_seeded));
  if (!seeded) {
    return "";
  }
  const auto zero = [&](const char* name) {
    const auto value = flag(name);
    return value && (value->isDouble() || value->isInt()) && value->toScalar().toDouble() == 0;
  };
  const bool off = (flag("train") && !says("train")) || (flag("training") && !says("training")) || zero("dropout_p") ||
                   zero("p") || zero("dropout");
  return off                                              ? ""
         : flag("dropout_p")                              ? "has a dropout_p above 0"
         : op.find("dropout") != op.npos || flag("train") ? "is in training mode"
                                                          : "draws random numbers";
}

}  // namespace whence::detail
