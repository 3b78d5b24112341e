#include "whence/curvature/detail/layer_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"

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

/// Whether a parameter is the bias of a layer, or one of those that its weight is made of.
bool is_part(const std::string& name, const TapeEntry& entry) {
  const auto sources = weight_sources(entry);
  return entry.bias == name || std::find(sources.begin(), sources.end(), name) != sources.end();
}

/// [B, K, T outputs] of [B, T, K outputs], and back. T is 0 where texts predict nothing.
at::Tensor swap_positions(const at::Tensor& x, std::int64_t middle, std::int64_t outer, std::int64_t outputs) {
  const auto swapped = middle == 1 || outer == 1 ? x : x.view({x.size(0), middle, outer, outputs}).transpose(1, 2);
  return swapped.reshape({x.size(0), outer, middle * outputs});
}

/// Scratch for one vector of a product with these rows.
std::int64_t scratch_bytes(const LayerRows& rows) {
  if (rows.token.defined()) {
    return (rows.formed.numel() + rows.layer.entries()) * rows.formed.element_size();
  }
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

}  // namespace

at::Tensor layer_times(const LayerRows& rows, const at::Tensor& x) {
  const auto count = x.size(0);
  if (rows.token.defined()) {
    const auto seen = at::bmm(rows.formed, x.index_select(1, rows.token).permute({1, 2, 0}));  // [U, R, K]
    return at::zeros({rows.examples, seen.size(1), count}, seen.options()).index_add_(0, rows.owner, seen);
  }
  if (rows.formed.defined()) {
    const auto per_example = rows.formed.size(0) / rows.examples;
    return at::mm(rows.formed, x.reshape({count, -1}).t()).view({rows.examples, per_example, count});
  }
  const auto seen = at::matmul(rows.input, x.reshape({-1, x.size(2)}).t());  // [B, T, K outputs]
  return at::bmm(rows.signal.flatten(2),
                 swap_positions(seen, rows.input.size(1), count, rows.layer.outputs).transpose(1, 2));
}

at::Tensor layer_transposed(const LayerRows& rows, const at::Tensor& u) {
  const auto count = u.size(2);
  const auto& layer = rows.layer;
  if (rows.token.defined()) {
    const auto pulled = at::bmm(rows.formed.transpose(1, 2), u.index_select(0, rows.owner));  // [U, columns, K]
    return at::zeros({count, layer.outputs, layer.columns()}, u.options())
        .index_add_(1, rows.token, pulled.permute({2, 0, 1}));
  }
  if (rows.formed.defined()) {
    return at::mm(u.reshape({-1, count}).t(), rows.formed).view({count, layer.outputs, layer.columns()});
  }
  const auto positions = rows.input.size(1);
  const auto pulled = at::bmm(u.transpose(1, 2), rows.signal.flatten(2));  // [B, K, T outputs]
  const auto stacked = swap_positions(pulled, count, positions, layer.outputs).reshape({-1, count * layer.outputs});
  return at::mm(stacked.t(), rows.input.reshape({-1, layer.columns()})).view({count, layer.outputs, layer.columns()});
}

at::Tensor squared_norms(const LayerRows& rows) {
  if (rows.token.defined()) {
    const auto squares = rows.formed.square().sum(at::IntArrayRef{1, 2});
    return at::zeros({rows.examples}, squares.options()).index_add_(0, rows.owner, squares);
  }
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

void add_embedding_gram(const LayerRows& a, const LayerRows& b, double scale, at::Tensor& out) {
  const auto places_of = [](const LayerRows& rows) {  // of each token, its pairs
    std::map<std::int64_t, std::vector<std::int64_t>> places;
    const auto tokens = rows.token.cpu();
    for (std::int64_t u = 0; u < tokens.numel(); ++u) {
      places[tokens.const_data_ptr<std::int64_t>()[u]].push_back(u);
    }
    return places;
  };
  const auto of_pairs = [](const LayerRows& rows, const std::vector<std::int64_t>& pairs) {  // rows of J, gradients
    const auto at = at::tensor(pairs, at::kLong).to(rows.token.device());
    const auto r = rows.formed.size(1);
    const auto numbers = rows.owner.index_select(0, at).unsqueeze(1) * r + at::arange(r, rows.owner.options());
    return std::pair{numbers.flatten(), rows.formed.index_select(0, at).flatten(0, 1)};
  };
  const auto there = places_of(b);
  for (const auto& [token, pairs] : places_of(a)) {
    if (const auto also = there.find(token); also != there.end()) {
      const auto [rows, gradients] = of_pairs(a, pairs);
      const auto [columns, others] = of_pairs(b, also->second);
      out.index_put_({rows.unsqueeze(1), columns.unsqueeze(0)}, at::mm(gradients, others.t()) * scale,
                     /*accumulate=*/true);
    }
  }
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

namespace {

/// The rows of an embedding's gradients that are not zero: of example `owner` and token `token`, the sum over the
/// places where the example uses it.
struct TokenSums {
  at::Tensor owner, token;  ///< [U] int64
  at::Tensor sum;           ///< [U, width]
};

at::Tensor owners_of(const TapeEntry& entry) {
  return entry.rows.owners.defined() ? entry.rows.owners : at::arange(entry.input.size(0), entry.input.options());
}

TokenSums token_sums(const at::Tensor& owners, const at::Tensor& tokens, const at::Tensor& signal,
                     std::int64_t height) {
  const auto [pairs, place, counts] = at::_unique2(owners * height + tokens, /*sorted=*/true, true);
  return {at::floor_divide(pairs, height), at::remainder(pairs, height),
          at::zeros({pairs.size(0), signal.size(1)}, signal.options()).index_add_(0, place, signal)};
}
TokenSums token_sums(const TapeEntry& entry, const at::Tensor& signal, std::int64_t height) {
  return token_sums(owners_of(entry), entry.input, signal, height);
}

/// Rows of J of a parameter outside the layers, of its `uses`.
LayerRows rows_of(const std::vector<OtherRows>& uses) {
  const auto& first = uses.front();
  const auto r = static_cast<std::int64_t>(first.signals.size());
  LayerRows out{{.name = first.parameter.name, .weight_name = first.parameter.name, .weight = first.parameter.offset},
                first.examples,
                {},
                {}};
  if (first.entry.kind != TapeEntry::Kind::kEmbedding) {
    out.layer.outputs = 1;
    out.layer.inputs = first.parameter.entries;
    for (const auto& use : uses) {
      TensorList each;
      for (const auto& signal : use.signals) {
        each.push_back(use.gradients(signal));
      }
      const auto part = at::stack(each, 1).flatten(0, 1);
      out.formed = out.formed.defined() ? out.formed.add_(part) : part;
    }
    return out;
  }
  TensorList owners, tokens, signals;
  for (const auto& use : uses) {
    owners.push_back(owners_of(use.entry));
    tokens.push_back(use.entry.input);
    signals.push_back(at::stack(use.signals, 1).flatten(1));  // [rows, R width]
  }
  const auto width = first.signals.front().size(1);
  out.layer.outputs = first.parameter.entries / width;
  out.layer.inputs = width;
  out.layer.transposed = first.entry.transposed;
  const auto sums = token_sums(at::cat(owners), at::cat(tokens), at::cat(signals), out.layer.outputs);
  out.owner = sums.owner;
  out.token = sums.token;
  out.formed = sums.sum.view({-1, r, width});
  return out;
}

}  // namespace

RowBatch::RowBatch(const Objective& objective, const ParameterSet& merged, const Batch& batch, const RowChoice& choice,
                   const LayerLayout& layout, bool form)
    : examples_(batch.size()) {
  const auto in_layout = [&](const TapeEntry& entry) {
    return std::any_of(layout.layers().begin(), layout.layers().end(),
                       [&](const auto& layer) { return layer.weight_name == entry.weight; }) ||
           std::any_of(layout.others().begin(), layout.others().end(),
                       [&](const auto& other) { return is_part(other.name, entry); });
  };
  const TapedPass pass(objective.model(), merged, batch, in_layout);
  std::map<std::string, std::vector<std::size_t>> uses;  // a layer's entries on the tape
  for (std::size_t i = 0; i < pass.entries().size(); ++i) {
    uses[pass.entries()[i].weight].push_back(i);
  }
  const auto starts = [&] {
    const c10::AutoGradMode with_grad(true);
    return cotangents(objective, pass.output().detach(), batch, choice);
  }();
  per_example_ = static_cast<std::int64_t>(starts.size());
  std::vector<TensorList> signals;  // [R][entry]
  for (std::size_t r = 0; r < starts.size(); ++r) {
    const bool last = r + 1 == starts.size();
    const bool nothing = batch.predicts_tokens() && !last && !starts[r].any().item<bool>();  // no text is so long
    signals.push_back(nothing ? pass.no_signals() : pass.signals_from(starts[r], !last));
    if (starts.size() > 64) {
      check_interruption();
    }
  }
  const c10::NoGradGuard no_grad;
  for (const auto& layer : layout.layers()) {
    TensorList inputs, layer_signals;
    at::Tensor lengths;
    for (const auto i : uses.at(layer.weight_name)) {
      const auto& whole = pass.entries()[i];
      const auto entry = of_group(whole, layer.group);
      TensorList rows;
      for (const auto& of_row : signals) {
        rows.push_back(widened(signal_positions(entry, of_group(whole, of_row[i], layer.group))));
      }
      layer_signals.push_back(at::stack(rows, 1));  // [B, R, T, outputs]
      inputs.push_back(input_columns(entry, layer.weight >= 0, layer.bias >= 0));
      if (entry.rows.places.defined()) {
        const auto real = entry.rows.places.ge(0).to(inputs.back().scalar_type()).sum(1);  // [B]
        lengths = lengths.defined() ? lengths + real : real;
      }
    }
    LayerRows rows{layer, examples_, at::cat(inputs, 1), at::cat(layer_signals, 2).contiguous(), {}, lengths};
    if (form) {
      form_where_smaller(rows);
    }
    layers_.push_back(std::move(rows));
  }
  for (const auto& other : layout.others()) {
    for (std::size_t i = 0; i < pass.entries().size(); ++i) {
      const auto& entry = pass.entries()[i];
      if (!is_part(other.name, entry)) {
        continue;
      }
      OtherRows rows{other, entry.bias == other.name, entry, {}, examples_, {}};
      rows.theta = entry.made_by ? merged.with(detach(merged.values())) : ParameterSet();
      rows.entry.output = at::Tensor();  // lets the graph go
      rows.entry.input = widened(rows.entry.input);
      for (const auto& of_row : signals) {
        rows.signals.push_back(widened(of_row[i]));
      }
      others_.push_back(std::move(rows));
    }
    if (layout.beside() == LayerLayout::Beside::kRows) {
      layers_.push_back(rows_of(std::exchange(others_, {})));
    }
  }
}

at::Tensor OtherRows::gradients(const at::Tensor& signal) const {
  if (bias) {
    return by_owner(entry, signal);
  }
  if (entry.made_by) {
    return source_gradients(theta, entry, signal, parameter.name);
  }
  return entry.kind == TapeEntry::Kind::kScale ? by_owner(entry, signal * entry.input)
                                               : filter_gradients(entry, signal);
}

at::Tensor OtherRows::squares() const {
  at::Tensor out;
  const auto add = [&](const at::Tensor& part) { out = out.defined() ? out.add_(part) : part; };
  for (const auto& signal : signals) {
    if (forms()) {
      add(gradients(signal).square().sum(0));
    } else if (entry.kind == TapeEntry::Kind::kEmbedding) {
      const auto height = parameter.entries / signal.size(1);
      const auto sums = token_sums(entry, signal, height);
      const auto table =
          at::zeros({height, signal.size(1)}, signal.options()).index_add_(0, sums.token, sums.sum.square());
      add((entry.transposed ? table.t() : table).flatten());
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
    if (forms()) {
      out.add_(at::mv(gradients(signal).square(), gains));
    } else if (entry.kind == TapeEntry::Kind::kEmbedding) {
      const auto table = entry.transposed ? gains.view({signal.size(1), -1}).t() : gains.view({-1, signal.size(1)});
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

}  // namespace whence::detail
