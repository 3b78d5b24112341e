#include "whence/models/exported/detail/self_check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>

#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/core/random.h"

namespace whence::detail {
namespace {

/// Base64, RFC 4648. Throws DataError for anything else.
std::string bytes_of(const JsonView& json) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto text = json.get<std::string>();
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text.substr(0, text.find('='))) {
    const auto digit = kDigits.find(c);
    if (digit == kDigits.npos) {
      json.refuse("base64");
    }
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xff));
    }
  }
  return out;
}

/// {"dtype": 7, "shape": [2, 3], "data": base64}
at::Tensor read_sample(const JsonView& json, const std::string& where) {
  const auto dtype = dtype_of_export(json["dtype"].get<std::int64_t>(), where);
  const auto shape = json["shape"].get<std::vector<std::int64_t>>();
  const auto bytes = bytes_of(json["data"]);
  std::uint64_t entries = 1;
  for (const auto size : shape) {
    if (size < 0 || __builtin_mul_overflow(entries, static_cast<std::uint64_t>(size), &entries)) {
      json.refuse("a shape");
    }
  }
  if (entries > bytes.size() || entries * c10::elementSize(dtype) != bytes.size()) {
    json.refuse(fmt::format("data of {} numbers", entries));
  }
  auto out = at::empty(shape, dtype);
  std::memcpy(out.data_ptr(), bytes.data(), bytes.size());
  return out;
}

/// Two examples of an argument, as the export saw it.
at::Tensor made_up(const ProgramInput& input, std::uint64_t seed) {
  std::vector<std::int64_t> sizes{2};
  constexpr std::int64_t kFew = 4, kMost = 1 << 24;
  std::int64_t entries = 2;
  for (std::size_t i = 1; i < input.sample.size(); ++i) {
    sizes.push_back(input.sample[i].value_or(kFew));
    if (sizes.back() < 0 || __builtin_mul_overflow(entries, sizes.back(), &entries) || entries > kMost) {
      throw InvalidArgument(fmt::format("argument {} is too large to make one up", input.name));
    }
  }
  auto random = Random(seed).stream(input.name);
  if (at::isFloatingType(input.dtype)) {
    return random.normal(sizes);
  }
  return input.name.find("mask") != std::string::npos ? at::ones(sizes, at::kLong)
                                                      : random.uniform(sizes, 0, 2).floor().to(at::kLong);
}

/// |a - b| over |a|, largest entries; infinite where one is not finite and the other another.
double difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) {
    return INFINITY;
  }
  if (a.numel() == 0) {
    return 0;
  }
  const auto x = a.to(at::kDouble), y = b.to(at::kDouble);
  const auto same = x.eq(y).logical_or(x.isnan().logical_and(y.isnan()));
  const auto largest = [](const at::Tensor& values) { return values.abs().max().item<double>(); };
  const double off = largest((x - y).masked_fill(same, 0));
  return std::isfinite(off) ? off / std::max(1e-30, largest(x.masked_fill(x.isfinite().logical_not(), 0))) : INFINITY;
}

/// Whether each row [C] is of shares of one whole.
bool are_shares(const at::Tensor& output) {
  if (output.dim() != 2 || output.size(1) < 2 || !output.is_floating_point()) {
    return false;
  }
  const auto x = output.to(at::kDouble);
  return x.ge(0).all().item<bool>() && (x.sum(1) - 1).abs().max().item<double>() < 1e-3;
}

std::string short_reason(const Error& error, const std::string& where) {
  std::string text = error.what();
  return text.starts_with(where + ": ") ? text.substr(where.size() + 2) : text;
}

}  // namespace

SelfCheck self_check(const ExportArchive& archive, const ProgramSignature& signature, at::ScalarType dtype,
                     const ProgramProbes& probes) {
  const double tolerance = dtype == at::kDouble ? 1e-9 : dtype == at::kFloat ? 1e-4 : 0.05;
  const at::NoGradGuard no_gradient;
  SelfCheck out;
  const bool stored = archive.told && archive.told->contains("sample");
  const Setting setting{dtype, dtype, at::kCPU};
  std::vector<at::Tensor> arguments, other;
  for (const auto& input : signature.inputs) {
    if (input.kind != ProgramInput::Kind::kUser) {
      continue;
    }
    try {
      arguments.push_back(stored ? read_sample((*archive.told)["sample"][input.name], archive.where)
                                 : made_up(input, 1).to(setting.type(input.dtype)));
    } catch (const InvalidArgument& error) {
      out.notes.push_back(fmt::format("{}: not tried out: {}", archive.where, error.what()));
      return out;
    }
    const auto& last = arguments.back();  // the second example is the first's copy in the other batch
    other.push_back(last.dim() > 0 && last.size(0) > 1 ? last.narrow(0, 0, 1).expand_as(last).contiguous() : last);
  }
  const bool single = signature.one_at_a_time();
  at::Tensor output;
  try {
    output = single ? probes.one_by_one(arguments) : probes.output(arguments);
    if (output.dim() == 0 || output.size(0) != arguments.front().size(0)) {
      throw InvalidArgument(fmt::format("an output of {} for a batch of {}, expected one row an example{}",
                                        output.dim() == 0 ? std::string("one number") : std::to_string(output.size(0)),
                                        arguments.front().size(0), output.dim() == 0 ? kOfEachExample : ""));
    }
  } catch (const InvalidArgument& error) {
    if (stored) {
      throw DataError(
          fmt::format("{}: its own sample does not run: {}", archive.where, short_reason(error, archive.where)));
    }
    out.notes.push_back(fmt::format("{}: not tried out: made-up examples do not run ({})", archive.where,
                                    short_reason(error, archive.where)));
    return out;
  }
  if (stored) {
    const auto told = read_sample((*archive.told)["output"], archive.where);
    if (const auto off = difference(told, output); off > tolerance) {
      throw DataError(fmt::format("{}: its sample gives an output that is {:.2g} off what PyTorch gave, expected {}",
                                  archive.where, off, tolerance));
    }
  }
  if (are_shares(output)) {
    out.notes.push_back(fmt::format(
        "{}: its outputs are shares that sum to 1, as of a softmax, and cross-entropy takes logits, of which "
        "it makes shares itself: export the model without its last softmax",
        archive.where));
  }
  if (!single && output.size(0) > 1) {
    const auto beside = probes.output(other);
    if (const auto moved = difference(output.select(0, 0), beside.select(0, 0)); moved > tolerance) {
      throw DataError(
          fmt::format("{}: examples see each other: the first one's output moves by {:.2g} when the second is another; "
                      "a model must "
                      "treat each example alone: no batch statistics (model.eval()), nothing summed over the batch",
                      archive.where, moved));
    }
    try {
      if (const auto off = difference(output, probes.one_by_one(arguments)); off > tolerance) {
        out.why_no_layers = fmt::format("its output is then {:.2g} off", off);
      }
    } catch (const InvalidArgument& error) {
      out.why_no_layers = short_reason(error, archive.where);
    }
  }
  bool checked = false;
  if (stored && archive.told->contains("gradient-norm") && !single) {
    const c10::AutoGradMode with_gradient(true);
    double squares = 0;
    for (const auto& part : probes.gradient(arguments)) {
      squares += part.to(at::kDouble).square().sum().item<double>();
    }
    const auto told = read_double((*archive.told)["gradient-norm"]), here = std::sqrt(squares);
    checked = std::abs(told - here) <= std::max(1e-3, tolerance) * std::max(told, here);
    if (!checked) {
      out.notes.push_back(
          fmt::format("{}: its gradient's norm is {:.6g} and was {:.6g} in PyTorch: a backward of its own (an "
                      "autograd.Function), which the export loses; write it as x + (f(x) - x).detach()",
                      archive.where, here, told));
    }
  }
  const auto verifiers = archive.program["verifiers"];
  if (!checked && verifiers.size() > 0 && verifiers[0] == "ATEN") {
    out.notes.push_back(
        fmt::format("{}: saved after run_decompositions(), which forgets no_grad: gradients may go where PyTorch's do "
                    "not; save what torch.export.export gives",
                    archive.where));
  }
  return out;
}

}  // namespace whence::detail
