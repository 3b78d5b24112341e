#include "whence/models/ops.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <optional>

#include "whence/core/error.h"
#include "whence/models/addition.h"
#include "whence/models/interruptible.h"

namespace whence {
namespace {

thread_local int derivative_order = 2;

std::string optional_name(const ParameterSet& theta, std::string name) { return theta.contains(name) ? name : ""; }
at::Tensor value_of(const ParameterSet& theta, const std::string& name) {
  return name.empty() ? at::Tensor() : theta.at(name);
}

[[noreturn]] void throw_misfit(std::string_view layer, const at::Tensor& x, const at::Tensor& weight) {
  throw InvalidArgument(fmt::format("layer {}: input of shape [{}] does not fit a weight of shape [{}]",
                                    layer.substr(0, layer.rfind('.')), fmt::join(x.sizes(), ", "),
                                    fmt::join(weight.sizes(), ", ")));
}

/// Appends the entry and gives it an output that autograd tracks: a leaf where nothing below is tracked, so that the
/// signal at `output` can be asked for without paying for gradients of the parameters.
at::Tensor record(Tape* tape, TapeEntry entry) {
  if (tape == nullptr || (tape->wanted && !tape->wanted(entry))) {
    return entry.output;
  }
  entry.input = entry.input.detach();
  if (!entry.output.requires_grad()) {
    entry.output = entry.output.detach().requires_grad_(true);
  }
  entry.rows = tape->rows;
  tape->entries.push_back(std::move(entry));
  return tape->entries.back().output;
}

/// What is added at the layer of a weight.
class AddedAt {
 public:
  AddedAt(const ParameterSet& theta, TapeEntry& site) : theta_(theta), site_(site) {
    if (theta.additions()) {
      const auto found = theta.additions()->find(layer_module(site.weight));
      all_ = found == theta.additions()->end() ? nullptr : &found->second;
    }
    if (all_ != nullptr) {
      for (const auto& addition : *all_) {
        site.made_by = addition->weight_sources().empty() ? site.made_by : addition;
      }
    }
  }

  at::Tensor weight() const { return site_.made_by ? site_.made_by->weight(theta_, site_) : theta_.at(site_.weight); }
  at::Tensor before(at::Tensor x, Tape* tape) const {
    each([&](const Addition& addition) { x = addition.before(theta_, site_, x, tape); });
    return x;
  }
  at::Tensor after(const at::Tensor& x, at::Tensor output, Tape* tape) const {
    each([&](const Addition& addition) { output = addition.after(theta_, site_, x, output, tape); });
    return output;
  }

 private:
  template <class Use>
  void each(const Use& use) const {
    for (const bool folds : {true, false}) {
      for (std::size_t i = 0; all_ != nullptr && i < all_->size(); ++i) {
        if ((*all_)[i]->folds() == folds) {
          use(*(*all_)[i]);
        }
      }
    }
  }

  const ParameterSet& theta_;
  TapeEntry& site_;
  const std::vector<std::shared_ptr<const Addition>>* all_ = nullptr;
};

/// Keys or values [R, G, S, D] for each head of q [R, H, T, D]: [R, H, S, D].
at::Tensor for_query_heads(const at::Tensor& x, const at::Tensor& q) {
  const auto groups = q.size(1) / x.size(1);
  return groups == 1 ? x : x.repeat_interleave(groups, 1);
}

/// Logits [R, H, T, S] of scaled queries as `how` says, before any mask.
at::Tensor shaped_logits(const at::Tensor& logits, const AttentionLogits& how) {
  const auto out = softcapped(logits, how.softcap);
  if (!how.slopes.defined()) {
    return out;
  }
  const auto places = how.key_places.unsqueeze(1).unsqueeze(1).to(out.scalar_type());
  return out + how.slopes.to(out.options().requires_grad(false)).view({1, -1, 1, 1}) * places;
}

/// [R, H, T, S] of scaled queries, -infinity where they may not look.
at::Tensor masked_logits(const at::Tensor& scaled_q, const at::Tensor& k, const at::Tensor& allowed, bool causal,
                         const AttentionLogits& how) {
  const auto logits = shaped_logits(at::matmul(scaled_q, for_query_heads(k, scaled_q).transpose(2, 3)), how);
  if (allowed.defined()) {
    return logits.masked_fill(allowed.logical_not(), -INFINITY);
  }
  if (causal) {
    const auto later =
        at::ones({scaled_q.size(2), k.size(2)}, logits.options().dtype(at::kBool).requires_grad(false)).triu(1);
    return logits.masked_fill(later, -INFINITY);
  }
  return logits;
}

/// In float32 at least, given back in the logits' type.
at::Tensor attention_softmax(const at::Tensor& logits) {
  const auto wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  return at::softmax(wide, -1).to(logits.scalar_type());
}

/// The rows' deviations from their means over their standard deviations, by differentiable pieces.
at::Tensor standardised(const at::Tensor& x, double epsilon) {
  const auto centred = x - x.mean(-1, /*keepdim=*/true);
  return centred * (centred.square().mean(-1, /*keepdim=*/true) + epsilon).rsqrt();
}

}  // namespace

DerivativeOrder::DerivativeOrder(int order) : before_(derivative_order) { derivative_order = order; }
DerivativeOrder::~DerivativeOrder() { derivative_order = before_; }
int DerivativeOrder::current() { return derivative_order; }

at::Tensor linear(const ParameterSet& theta, const LinearNames& names, const at::Tensor& given, Tape* tape) {
  TapeEntry entry{.weight = names.weight, .bias = names.bias, .input = {}, .output = {}};
  entry.transposed = names.transposed;
  entry.joins = names.joins;
  const AddedAt added(theta, entry);
  const auto x = added.before(given, tape);
  const auto weight = added.weight();
  if (x.dim() != 2 || weight.dim() != 2 || x.size(1) != weight.size(names.transposed ? 0 : 1)) {
    throw_misfit(names.weight, x, weight);
  }
  auto recorded = entry;
  recorded.input = x;
  recorded.output = at::linear(x, names.transposed ? weight.t() : weight, value_of(theta, names.bias));
  return added.after(x, record(tape, std::move(recorded)), tape);
}

at::Tensor linear(const ParameterSet& theta, std::string_view layer, const at::Tensor& x, Tape* tape) {
  return linear(theta, {fmt::format("{}.weight", layer), optional_name(theta, fmt::format("{}.bias", layer))}, x, tape);
}

at::Tensor convolution(const ParameterSet& theta, std::string_view layer, const at::Tensor& given, std::int64_t stride,
                       std::int64_t padding, Tape* tape) {
  TapeEntry entry{.kind = TapeEntry::Kind::kConvolution,
                  .weight = fmt::format("{}.weight", layer),
                  .bias = optional_name(theta, fmt::format("{}.bias", layer)),
                  .input = {},
                  .output = {}};
  entry.padding = {padding, padding};
  entry.stride = {stride, stride};
  const AddedAt added(theta, entry);
  const auto x = added.before(given, tape);
  const auto weight = added.weight();
  if (x.dim() != 4 || weight.dim() != 4 || x.size(1) != weight.size(1)) {
    throw_misfit(entry.weight, x, weight);
  }
  entry.kernel = weight.sizes().slice(2).vec();
  auto recorded = entry;
  recorded.input = x;
  recorded.output = interruptible(at::conv2d(x, weight, value_of(theta, entry.bias), stride, padding));
  return added.after(x, record(tape, std::move(recorded)), tape);
}

at::Tensor embedding(const ParameterSet& theta, const std::string& weight, const at::Tensor& ids, Tape* tape,
                     bool transposed) {
  TapeEntry entry{.kind = TapeEntry::Kind::kEmbedding, .weight = weight, .bias = "", .input = {}, .output = {}};
  entry.transposed = transposed;
  const AddedAt added(theta, entry);
  auto recorded = entry;
  recorded.input = ids;
  recorded.output =
      transposed ? added.weight().index_select(1, ids).t().contiguous() : added.weight().index_select(0, ids);
  return added.after(ids, record(tape, std::move(recorded)), tape);
}

at::Tensor scaled(const ParameterSet& theta, const std::string& weight, const std::string& bias, const at::Tensor& x,
                  Tape* tape) {
  if (x.dim() > 2) {  // places of an image as rows
    const auto rows = x.movedim(1, -1);
    const auto width = x.size(1), examples = x.size(0),
               places = x.numel() / std::max<std::int64_t>(1, width * examples);
    RowMap before;
    if (tape != nullptr) {
      before = tape->rows;
      const auto all = at::arange(examples * places, x.options().dtype(at::kLong).requires_grad(false));
      tape->rows = RowMap{at::floor_divide(all, places), all.view({examples, places}), {}, false};
    }
    const auto out = scaled(theta, weight, bias, rows.reshape({-1, width}), tape);
    if (tape != nullptr) {
      tape->rows = before;
    }
    // as convolutions lay images out: with other strides the next one would sum in another order
    return out.view(rows.sizes()).movedim(-1, 1).clone(at::MemoryFormat::Contiguous);
  }
  auto output = weight.empty() ? x : x * theta.at(weight).flatten();
  output = bias.empty() ? output : output + theta.at(bias).flatten();
  return record(tape, {.kind = TapeEntry::Kind::kScale, .weight = weight, .bias = bias, .input = x, .output = output});
}

at::Tensor layer_norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, double epsilon,
                      Tape* tape) {
  const auto weight_name = layer + ".weight", bias_name = optional_name(theta, layer + ".bias");
  const auto& weight = theta.at(weight_name);
  const auto bias = value_of(theta, bias_name);
  TapeEntry entry{.kind = TapeEntry::Kind::kScale, .weight = weight_name, .bias = bias_name, .input = x, .output = {}};
  if (derivative_order > 2 && x.requires_grad()) {
    entry.output = standardised(x, epsilon) * weight;
    entry.output = bias.defined() ? entry.output + bias : entry.output;
  } else {
    entry.output = at::layer_norm(x, {x.size(-1)}, weight, bias, epsilon);
  }
  if (tape != nullptr) {
    const at::NoGradGuard no_gradient;
    entry.input = at::layer_norm(x, {x.size(-1)}, {}, {}, epsilon);
  }
  return record(tape, std::move(entry));
}

at::Tensor rms_norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, double epsilon,
                    Tape* tape, double offset) {
  const auto name = layer + ".weight";
  const auto wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const auto normalised = (wide * (wide.square().mean(-1, /*keepdim=*/true) + epsilon).rsqrt()).to(x.scalar_type());
  return record(tape, {.kind = TapeEntry::Kind::kScale,
                       .weight = name,
                       .bias = "",
                       .input = normalised,
                       .output = normalised * (offset == 0 ? theta.at(name) : theta.at(name) + offset)});
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& allowed,
                     bool causal, const AttentionLogits& how) {
  if (derivative_order < 2 && how.softcap == 0 && !how.slopes.defined()) {
    const bool shared = k.size(1) != q.size(1);
    const auto mask = allowed.defined() ? std::optional<at::Tensor>(allowed) : std::nullopt;
    return at::scaled_dot_product_attention(q, k, v, mask, 0, causal && !allowed.defined(), how.scale, shared);
  }
  const auto logits = masked_logits(q * how.scale, k, allowed, causal, how);
  return at::matmul(attention_softmax(logits), for_query_heads(v, q));
}

at::Tensor attention(const ParameterSet& theta, const std::string& module, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, const at::Tensor& allowed, bool causal, const AttentionLogits& how,
                     Tape* tape) {
  if (tape != nullptr) {
    tape->attention.push_back({module, k.size(1), k.size(3)});
  }
  const auto* prefix = prefix_at(theta, module);
  if (prefix == nullptr) {
    return attention(q, k, v, allowed, causal, how);
  }
  const auto rows = q.size(0), heads = q.size(1), length = q.size(2), before = prefix->length();
  if (tape == nullptr && derivative_order < 2 && !how.slopes.defined()) {
    if (const auto whole = prefix->whole(theta); whole.keys.defined()) {
      const auto behind = [&](const at::Tensor& x, const at::Tensor& y) {
        return at::cat({x.unsqueeze(0).expand({rows, -1, -1, -1}), y}, 2);
      };
      auto seen = allowed;
      if (!seen.defined() && causal) {
        seen = at::ones({1, 1, length, length}, k.options().dtype(at::kBool).requires_grad(false)).tril();
      }
      if (seen.defined()) {
        seen = at::cat({at::ones({seen.size(0), 1, length, before}, seen.options()), seen}, 3);
      }
      return attention(q, behind(whole.keys, k), behind(whole.values, v), seen, /*causal=*/false, how);
    }
  }
  const auto scaled_q = q * how.scale;
  const auto groups = heads / k.size(1);
  TensorList of_prefix, brought;  // of each query head
  for (std::int64_t h = 0; h < heads; ++h) {
    const auto queries = scaled_q.select(1, h).reshape({rows * length, -1});
    of_prefix.push_back(prefix->logits(theta, h / groups, queries, tape).view({rows, length, before}));
  }
  auto there = how;  // the prefix has the first places
  there.key_places = how.slopes.defined() ? at::arange(before, how.key_places.options()).unsqueeze(0) : at::Tensor();
  const auto weights = attention_softmax(
      at::cat({shaped_logits(at::stack(of_prefix, 1), there), masked_logits(scaled_q, k, allowed, causal, how)}, 3));
  for (std::int64_t h = 0; h < heads; ++h) {
    const auto shares = weights.select(1, h).narrow(2, 0, before).reshape({rows * length, before});
    brought.push_back(prefix->brought(theta, h / groups, shares, tape).view({rows, length, -1}));
  }
  const auto own = at::matmul(weights.narrow(3, before, weights.size(3) - before), for_query_heads(v, q));
  return at::stack(brought, 1) + own;
}

at::Tensor softcapped(const at::Tensor& x, double c) { return c == 0 ? x : at::tanh(x / c) * c; }

at::Tensor activation(std::string_view name, const at::Tensor& x) {
  if (name == "tanh") {
    return at::tanh(x);
  }
  if (name == "relu") {
    return at::relu(x);
  }
  if (name == "gelu") {
    return at::gelu(x);
  }
  if (name == "gelu-tanh") {
    return at::gelu(x, "tanh");
  }
  if (name == "bloom-gelu") {
    return x * 0.5 * (1 + at::tanh(0.79788456 * x * (1 + 0.044715 * x * x)));
  }
  if (name == "silu") {
    return at::silu(x);
  }
  if (name == "quick-gelu") {
    return x * at::sigmoid(1.702 * x);
  }
  throw InvalidArgument(
      unknown_name("activation", name, {"tanh", "relu", "gelu", "gelu-tanh", "bloom-gelu", "silu", "quick-gelu"}));
}

at::Tensor class_log_odds(const at::Tensor& output, const at::Tensor& classes) {
  const auto own = classes.unsqueeze(1);
  return output.gather(1, own).squeeze(1) - output.scatter(1, own, -INFINITY).logsumexp(1);
}

at::Tensor pool(std::string_view name, const at::Tensor& x) {
  if (name == "max") {
    return at::max_pool2d(x, 2);
  }
  if (name == "avg") {
    return at::avg_pool2d(x, 2);
  }
  throw InvalidArgument(unknown_name("pool", name, {"max", "avg"}));
}

at::Tensor inputs_like(const ParameterSet& theta, const at::Tensor& inputs) {
  return theta.empty() ? inputs : inputs.to(theta.values().front().scalar_type());
}

void add_layer(ParameterSet& theta, const std::string& layer, at::IntArrayRef shape, std::string_view activation_name,
               const Random& random) {
  double kernel = 1;
  for (const auto extent : shape.slice(2)) {
    kernel *= static_cast<double>(extent);
  }
  const double fan_out = static_cast<double>(shape[0]) * kernel, fan_in = static_cast<double>(shape[1]) * kernel;
  const bool one_sided = activation_name == "relu" || activation_name == "gelu";
  const auto name = layer + ".weight";
  theta.add(name, random.stream(name).normal(shape) * std::sqrt(2 / (one_sided ? fan_in : fan_in + fan_out)));
  theta.add(layer + ".bias", at::zeros({shape[0]}, at::kDouble));
}

}  // namespace whence
