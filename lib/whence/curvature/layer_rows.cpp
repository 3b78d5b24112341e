#include "whence/curvature/detail/layer_rows.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/curvature/detail/pieces.h"
#include "whence/curvature/gram_operator.h"
#include "whence/models/ops.h"
#include "whence/models/per_sample.h"

namespace whence::detail {
namespace {

/// Whether each prediction of a batch stands at `place` of its text: [M, 1].
at::Tensor predicts_at(const Batch& batch, std::int64_t place) {
  const auto places = batch.text->positions.flatten().index_select(0, batch.text->predicted);
  return places.eq(place).unsqueeze(1);
}

/// R cotangents of the output, each shaped as it and in its dtype, scaled by sqrt(w_i / N).
TensorList cotangents(const Objective& objective, const at::Tensor& output, const Batch& batch,
                      const RowChoice& choice) {
  const auto weights = objective.batch_weights(batch);
  if ((weights < 0).any().item<bool>()) {
    throw InvalidArgument("a curvature made of rows needs example weights >= 0");
  }
  const auto scale = spread_to_outputs(batch, weights.sqrt()).unsqueeze(1);
  TensorList out;
  switch (choice.kind) {
    case RowKind::kGaussNewton: {
      const auto root = objective.loss().hessian_root(output, batch);
      const auto places = batch.predicts_tokens() ? objective.data().longest() : 1;
      for (std::int64_t place = 0; place < places; ++place) {
        const auto share = batch.predicts_tokens() ? scale * predicts_at(batch, place).to(scale.dtype()) : scale;
        for (std::int64_t r = 0; r < root.size(2); ++r) {
          out.push_back(root.select(2, r) * share);
        }
      }
      break;
    }
    case RowKind::kFisher:
      for (std::int64_t s = 0; s < choice.noise.size(0); ++s) {
        const auto numbers = batch.predicts_tokens() ? batch.text->serials : batch.rows;
        const auto noise = choice.noise[s].index_select(0, numbers.cpu()).to(output.device());
        out.push_back(objective.loss().sampled_gradient(output, batch, noise) * scale /
                      std::sqrt(static_cast<double>(choice.noise.size(0))));
      }
      break;
    case RowKind::kEmpirical: {
      const auto free = widened(output).detach().requires_grad_(true);
      out.push_back(gradient(objective.loss().per_example(free, batch).sum(), TensorList{free})[0] * scale);
      break;
    }
  }
  for (auto& cotangent : out) {
    cotangent = cotangent.to(output.scalar_type());
  }
  return out;
}

/// [B, K, T outputs] of [B, T, K outputs], and back.
at::Tensor swap_positions(const at::Tensor& x, std::int64_t middle, std::int64_t outer) {
  if (middle == 1 || outer == 1) {
    return x.reshape({x.size(0), outer, -1});
  }
  return x.view({x.size(0), middle, outer, -1}).transpose(1, 2).reshape({x.size(0), outer, -1});
}

/// Scratch for one vector of a product with these rows.
std::int64_t scratch_bytes(const LayerRows& rows) {
  if (rows.formed.defined()) {
    return rows.formed.size(0) * rows.formed.element_size();
  }
  return 2 * rows.examples * rows.input.size(1) * rows.layer.outputs * rows.input.element_size();
}

void form_where_smaller(LayerRows& rows) {
  const auto b = rows.signal.size(0), r = rows.signal.size(1), t = rows.signal.size(2), o = rows.signal.size(3);
  const auto columns = rows.layer.columns();
  if (t == 1 || r * o * columns > t * (columns + r * o)) {
    return;
  }
  rows.formed = at::empty({b * r, o * columns}, rows.signal.options());
  in_chunks(b, r * o * (t + columns) * rows.signal.element_size(), [&](std::int64_t begin, std::int64_t length) {
    const auto signal = rows.signal.narrow(0, begin, length).transpose(2, 3).reshape({length, r * o, t});
    rows.formed.narrow(0, begin * r, length * r)
        .copy_(at::bmm(signal, rows.input.narrow(0, begin, length)).view({length * r, o * columns}));
  });
  rows.input = at::Tensor();
  rows.signal = at::Tensor();
}

class RowOperator : public GramOperator {
 public:
  RowOperator(const CurvaturePoint& point, LayerLayout layout, RowChoice choice, double kept_bytes)
      : point_(point),
        merged_(point_.objective.merge(detach(point_.theta), detach(point_.parent))),
        layout_(std::move(layout)),
        choice_(std::move(choice)),
        diagonal_(penalty_diagonal(point_)) {
    const auto& data = point_.objective.data();
    const RowBatch first(point_.objective, merged_, data.batch(0, 1), choice_, layout_, true);
    per_example_ = first.per_example();
    if (first.bytes() * static_cast<double>(data.size()) <= keepable_bytes(kept_bytes)) {
      point_.objective.for_each_batch([&](const Batch& batch) { kept_.push_back(made(batch)); });
    }
  }

  std::int64_t size() const override { return layout_.entries(); }
  at::TensorOptions options() const override { return diagonal_.options(); }
  /// J' J knows its eigenvalues to the square of what J, whose passes are in the model's dtype, knows its entries to.
  double rounding() const override {
    const double of_rows = epsilon(point_.theta.front().scalar_type());
    return 16 * std::max(epsilon(diagonal_.scalar_type()), of_rows * of_rows);
  }
  std::int64_t rows() const override { return per_example_ * point_.objective.data().size(); }
  const at::Tensor& diagonal() const override { return diagonal_; }

  at::Tensor times(const at::Tensor& x) const override {
    TensorList parts;
    for_each([&](const RowBatch& rows) { parts.push_back(rows.times(x)); });
    return at::cat(parts, 1);
  }
  at::Tensor transposed_times(const at::Tensor& u) const override {
    auto out = at::zeros({u.size(0), size()}, u.options());
    std::int64_t begin = 0;
    for_each([&](const RowBatch& rows) {
      rows.add_transposed(u.narrow(1, begin, rows.rows()), out);
      begin += rows.rows();
    });
    return out;
  }

  at::Tensor gram(const at::Tensor& scale) const override {
    std::vector<RowBatch> all;
    for_each([&](const RowBatch& rows) { all.push_back(rows); });
    auto out = at::zeros({rows(), rows()}, options());
    std::int64_t first = 0;
    for (const auto& a : all) {
      std::int64_t second = 0;
      for (const auto& b : all) {
        if (second <= first) {
          const auto block = gram_block(a, b, scale);
          out.narrow(0, first, a.rows()).narrow(1, second, b.rows()).copy_(block);
          out.narrow(0, second, b.rows()).narrow(1, first, a.rows()).copy_(block.t());
        }
        second += b.rows();
      }
      first += a.rows();
    }
    return out;
  }

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override {
    auto out = x * diagonal_;
    for_each([&](const RowBatch& rows) { rows.add_transposed(rows.times(x), out); });
    return out;
  }
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    const auto n = point_.objective.data().size();
    const auto drawn = random.uniform({batch_size}, 0, static_cast<double>(n)).floor().to(at::kLong).clamp_max(n - 1);
    const auto rows = made(point_.objective.data().batch(drawn));
    auto out = at::zeros_like(x);
    rows.add_transposed(rows.times(x), out);
    return out.mul_(static_cast<double>(n) / static_cast<double>(batch_size)).add_(x * diagonal_);
  }
  std::int64_t examples() const override { return point_.objective.data().size(); }
  double trace() const override {
    auto sum = diagonal_.sum(at::kDouble);
    for_each([&](const RowBatch& batch) {
      for (const auto& rows : batch.layers()) {
        sum = sum + squared_norms(rows).sum(at::kDouble);
      }
    });
    return sum.item<double>();
  }

 private:
  RowBatch made(const Batch& batch) const { return RowBatch(point_.objective, merged_, batch, choice_, layout_, true); }
  template <class Body>
  void for_each(const Body& body) const {
    std::int64_t done = 0;
    for (const auto& rows : kept_) {
      check_interruption(done, point_.objective.data().size());
      body(rows);
      done += rows.examples();
    }
    if (kept_.empty()) {
      point_.objective.for_each_batch([&](const Batch& batch) { body(made(batch)); });
    }
  }

  /// The one value that `scale` has over `count` entries from `begin`.
  static double constant(const at::Tensor& scale, std::int64_t begin, std::int64_t count, const std::string& layer) {
    const auto part = scale.narrow(0, begin, count);
    const double low = part.min().item<double>(), high = part.max().item<double>();
    if (high - low > 1e-6 * std::abs(high)) {
      throw InvalidArgument(
          fmt::format("the penalty differs within layer {}: from {:.3g} to {:.3g}", layer, low, high));
    }
    return high;
  }

  static at::Tensor gram_block(const RowBatch& a, const RowBatch& b, const at::Tensor& scale) {
    auto out = at::zeros({a.rows(), b.rows()}, scale.options());
    for (std::size_t l = 0; l < a.layers().size(); ++l) {
      const auto& x = a.layers()[l];
      const auto& y = b.layers()[l];
      auto column_scale = at::empty({x.layer.columns()}, scale.options());
      if (x.layer.weight >= 0) {
        column_scale.narrow(0, 0, x.layer.inputs)
            .fill_(constant(scale, x.layer.weight, x.layer.outputs * x.layer.inputs, x.layer.name));
      }
      if (x.layer.bias >= 0) {
        column_scale[x.layer.inputs].fill_(constant(scale, x.layer.bias, x.layer.outputs, x.layer.name));
      }
      if (!x.formed.defined() && x.input.size(1) == 1) {  // (signal . signal)(input . input)
        const auto inputs = at::mm(x.input.squeeze(1) * column_scale, y.input.squeeze(1).t());  // [A, B]
        const auto signals =
            at::mm(x.signal.reshape({-1, x.layer.outputs}), y.signal.reshape({-1, y.layer.outputs}).t());
        const auto ra = a.per_example(), rb = b.per_example();
        out.add_((signals.view({a.examples(), ra, b.examples(), rb}) * inputs.view({a.examples(), 1, b.examples(), 1}))
                     .view_as(out));
      } else {
        const auto entries = column_scale.expand({x.layer.outputs, -1}).reshape({1, -1});
        out.add_(at::mm(formed(x) * entries, formed(y).t()));
      }
    }
    return out;
  }
  static at::Tensor formed(const LayerRows& rows) {
    if (rows.formed.defined()) {
      return rows.formed;
    }
    const auto signal = rows.signal.transpose(2, 3).flatten(1, 2);  // [B, R outputs, T]
    return at::bmm(signal, rows.input).view({-1, rows.layer.entries()});
  }

  CurvaturePoint point_;
  ParameterSet merged_;
  LayerLayout layout_;
  RowChoice choice_;
  at::Tensor diagonal_;
  std::int64_t per_example_ = 0;
  std::vector<RowBatch> kept_;
};

}  // namespace

std::optional<LayerLayout> LayerLayout::of(const Objective& objective, const ParameterSet& merged,
                                           const std::vector<std::string>& names, const TensorList& values,
                                           std::optional<std::int64_t> widest) {
  Tape tape;
  const auto batch = objective.data().batch(0, 1);
  const auto output = objective.model().output(merged.with(detach(merged.values())), batch, &tape);
  if (output.dim() != 2) {
    return std::nullopt;
  }
  std::set<std::string> tied;  // matrices that the forward pass also uses otherwise
  for (const auto& entry : tape.entries) {
    if (entry.kind == TapeEntry::Kind::kEmbedding) {
      tied.insert(entry.weight);
    }
  }
  LayerLayout out;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& name = names[i];
    const auto entry = std::find_if(tape.entries.begin(), tape.entries.end(),
                                    [&](const TapeEntry& e) { return e.weight == name || e.bias == name; });
    if (entry == tape.entries.end() || !merged.contains(name) || merged.at(name).data_ptr() != values[i].data_ptr()) {
      return std::nullopt;
    }
    const auto& weight = merged.at(entry->weight);
    const auto side = weight.dim() > 1 ? std::max(weight.size(0), weight.numel() / weight.size(0)) : 0;
    if (tied.count(entry->weight) > 0 || entry->kind == TapeEntry::Kind::kScale || (widest && side > *widest)) {
      if (!widest) {
        return std::nullopt;
      }
      out.others_.push_back({name, offset, values[i].numel()});
      offset += values[i].numel();
      continue;
    }
    auto layer =
        std::find_if(out.layers_.begin(), out.layers_.end(), [&](const Layer& l) { return l.name == entry->weight; });
    if (layer == out.layers_.end()) {
      out.layers_.push_back({entry->weight});
      layer = out.layers_.end() - 1;
      layer->transposed = entry->transposed;
    }
    layer->outputs = values[i].size(entry->transposed && name == entry->weight ? 1 : 0);
    if (name == entry->weight) {
      layer->weight = offset;
      layer->inputs = values[i].numel() / layer->outputs;
    } else {
      layer->bias = offset;
    }
    offset += values[i].numel();
  }
  out.entries_ = offset;
  return out;
}

/// The layer's weights in x [K, P] as a view [K, outputs, inputs].
static at::Tensor weights_of(const LayerLayout::Layer& layer, const at::Tensor& x) {
  const auto part = x.narrow(1, layer.weight, layer.outputs * layer.inputs);
  if (layer.transposed) {
    return part.unflatten(1, {layer.inputs, layer.outputs}).transpose(1, 2);
  }
  return part.unflatten(1, {layer.outputs, layer.inputs});
}

at::Tensor LayerLayout::gather(const Layer& layer, const at::Tensor& x) {
  TensorList parts;
  if (layer.weight >= 0) {
    parts.push_back(weights_of(layer, x));
  }
  if (layer.bias >= 0) {
    parts.push_back(x.narrow(1, layer.bias, layer.outputs).unsqueeze(2));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 2);
}

void LayerLayout::add(const Layer& layer, const at::Tensor& part, at::Tensor& out) {
  if (layer.weight >= 0) {
    weights_of(layer, out).add_(part.narrow(2, 0, layer.inputs));
  }
  if (layer.bias >= 0) {
    out.narrow(1, layer.bias, layer.outputs).add_(part.select(2, layer.inputs));
  }
}

at::Tensor layer_times(const LayerRows& rows, const at::Tensor& x) {
  const auto count = x.size(0);
  if (rows.formed.defined()) {
    const auto per_example = rows.formed.size(0) / rows.examples;
    return at::mm(rows.formed, x.reshape({count, -1}).t()).view({rows.examples, per_example, count});
  }
  const auto seen = at::matmul(rows.input, x.reshape({-1, x.size(2)}).t());  // [B, T, K outputs]
  return at::bmm(rows.signal.flatten(2), swap_positions(seen, rows.input.size(1), count).transpose(1, 2));
}

at::Tensor layer_transposed(const LayerRows& rows, const at::Tensor& u) {
  const auto count = u.size(2);
  const auto& layer = rows.layer;
  if (rows.formed.defined()) {
    return at::mm(u.reshape({-1, count}).t(), rows.formed).view({count, layer.outputs, layer.columns()});
  }
  const auto positions = rows.input.size(1);
  const auto pulled = at::bmm(u.transpose(1, 2), rows.signal.flatten(2));  // [B, K, T outputs]
  const auto stacked = swap_positions(pulled, count, positions).reshape({-1, count * layer.outputs});
  return at::mm(stacked.t(), rows.input.reshape({-1, layer.columns()})).view({count, layer.outputs, layer.columns()});
}

at::Tensor squared_norms(const LayerRows& rows) {
  if (rows.formed.defined()) {
    return rows.formed.square().view({rows.examples, -1}).sum(1);
  }
  if (rows.input.size(1) == 1) {
    return rows.input.square().sum(at::IntArrayRef{1, 2}) * rows.signal.square().sum(at::IntArrayRef{1, 2, 3});
  }
  const auto inputs = at::bmm(rows.input, rows.input.transpose(1, 2));               // [B, T, T]
  const auto signals = at::matmul(rows.signal, rows.signal.transpose(2, 3)).sum(1);  // [B, T, T]
  return (inputs * signals).sum(at::IntArrayRef{1, 2});
}

std::int64_t exact_rows(const Dataset& data) {
  const auto kind = data.target_kind();
  const bool tokens = kind == TargetKind::kNextTokens || kind == TargetKind::kMaskedTokens;
  return data.outputs() * (tokens ? data.longest() : 1);
}

RowChoice make_rows(RowKind kind, std::int64_t samples, std::uint64_t seed, const Objective& objective) {
  RowChoice out{kind};
  if (kind == RowKind::kFisher) {
    out.noise = Random(seed)
                    .stream("labels of the fisher")
                    .uniform({samples, objective.data().predictions(),
                              objective.loss().noise_width(objective.data().outputs())},
                             1e-12, 1 - 1e-12);
  }
  return out;
}

RowBatch::RowBatch(const Objective& objective, const ParameterSet& merged, const Batch& batch, const RowChoice& choice,
                   const LayerLayout& layout, bool form)
    : examples_(batch.size()) {
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder first(1);
  Tape tape;
  const auto output = objective.model().output(merged.with(detach(merged.values())), batch, &tape);
  std::map<std::string, std::vector<std::size_t>> uses;  // a layer's entries on the tape
  TensorList outputs;
  for (std::size_t i = 0; i < tape.entries.size(); ++i) {
    uses[tape.entries[i].weight].push_back(i);
    outputs.push_back(tape.entries[i].output);
  }
  const auto starts = cotangents(objective, output.detach(), batch, choice);
  per_example_ = static_cast<std::int64_t>(starts.size());
  std::vector<TensorList> signals;  // [R][entry]
  for (std::size_t r = 0; r < starts.size(); ++r) {
    const bool last = r + 1 == starts.size();
    const bool nothing = batch.predicts_tokens() && !last && !starts[r].any().item<bool>();  // no text is so long
    signals.push_back(nothing ? zeros_like(detach(outputs))
                              : gradient(TensorList{output}, outputs, {starts[r]}, false, !last));
    if (starts.size() > 64) {
      check_interruption();
    }
  }
  const c10::NoGradGuard no_grad;
  for (const auto& layer : layout.layers()) {
    TensorList inputs, layer_signals;
    at::Tensor lengths;
    for (const auto i : uses.at(layer.name)) {
      const auto& entry = tape.entries[i];
      TensorList rows;
      for (const auto& of_row : signals) {
        rows.push_back(widened(signal_positions(entry, of_row[i])));
      }
      layer_signals.push_back(at::stack(rows, 1));  // [B, R, T, outputs]
      TensorList columns;
      const auto positions = layer_signals.back().size(2);
      if (layer.weight >= 0) {
        columns.push_back(widened(input_positions(entry)));
      }
      if (layer.bias >= 0) {
        columns.push_back(at::ones({examples_, positions, 1}, layer_signals.back().options()));
      }
      inputs.push_back(at::cat(columns, 2));
      if (entry.rows.places.defined()) {
        const auto real = entry.rows.places.ge(0).to(inputs.back().scalar_type());  // [B, T]
        inputs.back() = inputs.back() * real.unsqueeze(2);
        lengths = lengths.defined() ? lengths + real.sum(1) : real.sum(1);
      }
    }
    LayerRows rows{layer, examples_, at::cat(inputs, 1), at::cat(layer_signals, 2).contiguous(), {}, lengths};
    if (form) {
      form_where_smaller(rows);
    }
    layers_.push_back(std::move(rows));
  }
  for (const auto& other : layout.others()) {
    for (std::size_t i = 0; i < tape.entries.size(); ++i) {
      auto& entry = tape.entries[i];
      if (entry.weight != other.name && entry.bias != other.name) {
        continue;
      }
      OtherRows rows{other, entry.bias == other.name, entry, {}, examples_};
      rows.entry.output = at::Tensor();  // lets the graph go
      rows.entry.input = widened(rows.entry.input);
      for (const auto& of_row : signals) {
        rows.signals.push_back(widened(of_row[i]));
      }
      others_.push_back(std::move(rows));
    }
  }
}

/// x [rows, ...] summed over each example's rows.
static at::Tensor by_owner(const TapeEntry& entry, const at::Tensor& x) {
  return entry.rows.places.defined() ? sum_rows(entry.rows, x) : x;
}

namespace {

/// The rows of an embedding's gradients that are not zero: of example `owner` and token `token`, the sum over the
/// places where the example uses it.
struct TokenSums {
  at::Tensor owner, token;  ///< [U] int64
  at::Tensor sum;           ///< [U, width]
};

TokenSums token_sums(const TapeEntry& entry, const at::Tensor& signal, std::int64_t height) {
  const auto owners =
      entry.rows.owners.defined() ? entry.rows.owners : at::arange(signal.size(0), entry.input.options());
  const auto [pairs, place, counts] = at::_unique2(owners * height + entry.input, /*sorted=*/true, true);
  return {at::floor_divide(pairs, height), at::remainder(pairs, height),
          at::zeros({pairs.size(0), signal.size(1)}, signal.options()).index_add_(0, place, signal)};
}

}  // namespace

at::Tensor OtherRows::squares() const {
  at::Tensor out;
  const auto add = [&](const at::Tensor& part) { out = out.defined() ? out.add_(part) : part; };
  for (const auto& signal : signals) {
    if (bias) {
      add(by_owner(entry, signal).square().sum(0));
    } else if (entry.kind == TapeEntry::Kind::kScale) {
      add(by_owner(entry, signal * entry.input).square().sum(0));
    } else if (entry.kind == TapeEntry::Kind::kEmbedding) {
      const auto height = parameter.entries / signal.size(1);
      const auto sums = token_sums(entry, signal, height);
      add(at::zeros({height, signal.size(1)}, signal.options()).index_add_(0, sums.token, sums.sum.square()).flatten());
    } else {
      const auto gradient = at::mm(signal.square().t(), entry.input.square());  // [outputs, inputs]
      add((entry.transposed ? gradient.t() : gradient).flatten());
    }
  }
  return out;
}

at::Tensor OtherRows::quadratic_forms(const at::Tensor& gains) const {
  auto out = at::zeros({examples}, gains.options());
  for (const auto& signal : signals) {
    if (bias) {
      out.add_(at::mv(by_owner(entry, signal).square(), gains));
    } else if (entry.kind == TapeEntry::Kind::kScale) {
      out.add_(at::mv(by_owner(entry, signal * entry.input).square(), gains));
    } else if (entry.kind == TapeEntry::Kind::kEmbedding) {
      const auto table = gains.view({-1, signal.size(1)});
      const auto sums = token_sums(entry, signal, table.size(0));
      out.index_add_(0, sums.owner, (sums.sum.square() * table.index_select(0, sums.token)).sum(1));
    } else {
      const auto matrix = entry.transposed ? gains.view({-1, signal.size(1)}).t() : gains.view({signal.size(1), -1});
      out.add_(by_owner(entry, (at::mm(signal.square(), matrix) * entry.input.square()).sum(1)));
    }
  }
  return out;
}

at::Tensor RowBatch::times(const at::Tensor& x) const {
  const c10::NoGradGuard no_grad;
  auto u = at::zeros({examples_, per_example_, x.size(0)}, x.options());
  for (const auto& rows : layers_) {
    const auto block = LayerLayout::gather(rows.layer, x);
    in_chunks(x.size(0), scratch_bytes(rows), [&](std::int64_t begin, std::int64_t length) {
      auto part = u.narrow(2, begin, length);
      part.add_(layer_times(rows, block.narrow(0, begin, length)));
    });
  }
  return u.view({-1, x.size(0)}).t();
}

void RowBatch::add_transposed(const at::Tensor& u, at::Tensor& out) const {
  const c10::NoGradGuard no_grad;
  const auto stacked = u.t().reshape({examples_, per_example_, u.size(0)});
  for (const auto& rows : layers_) {
    in_chunks(u.size(0), scratch_bytes(rows), [&](std::int64_t begin, std::int64_t length) {
      auto place = out.narrow(0, begin, length);
      LayerLayout::add(rows.layer, layer_transposed(rows, stacked.narrow(2, begin, length)), place);
    });
  }
}

double RowBatch::bytes() const {
  double out = 0;
  for (const auto& rows : layers_) {
    for (const auto& part : {rows.input, rows.signal, rows.formed}) {
      out += part.defined() ? static_cast<double>(part.numel() * part.element_size()) : 0;
    }
  }
  for (const auto& rows : others_) {
    for (const auto& signal : rows.signals) {
      out += 2 * static_cast<double>(signal.numel() * signal.element_size());
    }
  }
  return out;
}

OperatorPtr row_operator(const CurvaturePoint& point, const LayerLayout& layout, const RowChoice& choice,
                         double kept_bytes) {
  return std::make_shared<RowOperator>(point, layout, choice, kept_bytes);
}

std::optional<LayerLayout> trained_layout(const CurvaturePoint& point, std::optional<std::int64_t> widest) {
  const auto& objective = point.objective;
  return LayerLayout::of(objective, objective.merge(point.theta, point.parent), objective.trained().names(),
                         point.theta, widest);
}

std::optional<LayerLayout> parent_layout(const CurvaturePoint& point) {
  const auto& objective = point.objective;
  return LayerLayout::of(objective, objective.merge(point.theta, point.parent), objective.parent_layout().names(),
                         point.parent);
}

void add_row_mixed_product(const CurvaturePoint& point, const LayerLayout& trained, const LayerLayout& parent,
                           const RowChoice& choice, const at::Tensor& v, at::Tensor& out) {
  const auto merged = point.objective.merge(detach(point.theta), detach(point.parent));
  point.objective.for_each_batch([&](const Batch& batch) {
    const RowBatch here(point.objective, merged, batch, choice, trained, false);
    const RowBatch there(point.objective, merged, batch, choice, parent, false);
    there.add_transposed(here.times(v), out);
  });
}

}  // namespace whence::detail

namespace whence {

bool covered_by_layers(const CurvaturePoint& point) { return detail::trained_layout(point).has_value(); }

}  // namespace whence
