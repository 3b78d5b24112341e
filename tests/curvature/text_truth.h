#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support/near.h"
#include "support/text_points.h"

namespace whence::test {

/// Which cotangents c of an example's outputs make rows c' J: those whose c c' sum to the loss's Hessian, one for
/// labels drawn from the model, or one for the data's own.
enum class Labels { kExact, kSampled, kData };

/// A linear layer in the pass of one text.
struct LayerUse {
  std::string weight, bias;
  bool transposed = false;
  at::Tensor input;    ///< [T, in]
  at::Tensor signals;  ///< [R, T, out], of each cotangent.
};

/// What one text adds to a curvature.
struct TextRows {
  at::Tensor gradients;  ///< [R, entries of theta and parent], over the root of the number of texts.
  std::vector<LayerUse> layers;
};

/// The cotangents of one text's outputs, each as these: [R, outputs, vocabulary].
inline at::Tensor text_cotangents(Labels labels, const Objective& objective, const at::Tensor& output,
                                  const Batch& text) {
  const auto free = output.detach().requires_grad_(true);
  const auto slope = gradient(objective.loss().per_example(free, text).sum(), TensorList{free}, true)[0];
  if (labels == Labels::kData) {
    return slope.detach().unsqueeze(0);
  }
  TensorList columns;
  for (std::int64_t c = 0; c < slope.numel(); ++c) {
    columns.push_back(gradient(slope.flatten()[c], TensorList{free}, false, true)[0].flatten());
  }
  const auto hessian = columns.empty() ? at::zeros({0, 0}, at::kDouble) : at::stack(columns);
  if (labels == Labels::kExact) {
    const auto [h, basis] = at::linalg_eigh(hessian);
    return (basis * h.clamp_min(0).sqrt()).t().reshape({hessian.size(0), output.size(0), output.size(1)});
  }
  auto out = at::zeros_like(output.detach());
  const auto noise =
      Random(0).stream("labels of the fisher").uniform({1, objective.data().predictions(), 1}, 1e-12, 1 - 1e-12);
  for (std::int64_t m = 0; m < output.size(0); ++m) {  // the first label that the probabilities up to it reach
    const auto p = at::exp(output[m].detach()) / at::exp(output[m].detach()).sum();
    const double drawn = noise[0][text.text->serials[m].item<std::int64_t>()][0].item<double>();
    std::int64_t label = 0;
    for (double reached = p[0].item<double>(); reached <= drawn && label + 1 < p.size(0);) {
      reached += p[++label].item<double>();
    }
    out[m] = p;
    out[m][label] -= 1;
    // the mean over labels of (p - e)(p - e)' is the softmax's Hessian; the loss's is a multiple of it
    const auto own = hessian.narrow(0, m * p.size(0), p.size(0)).narrow(1, m * p.size(0), p.size(0));
    out[m] *= (own.diagonal().sum() / (1 - p.square().sum())).sqrt();
  }
  return out.unsqueeze(0);
}

/// Of each text on its own, neither padded nor packed, by a backward pass a row. The tape says where layers are; that
/// it is right is checked against autograd's gradients of the weights.
inline std::vector<TextRows> text_rows(Labels labels, const CurvaturePoint& at_point) {
  const auto& [objective, theta, parent] = at_point;
  const auto point = leaves(theta), from = leaves(parent);
  auto all = point;
  all.insert(all.end(), from.begin(), from.end());
  const auto n = objective.data().size();
  std::vector<TextRows> out;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto text = objective.data().batch(i, i + 1);
    Tape tape;
    const auto output = objective.output(point, from, text, &tape);
    const auto cotangents = text_cotangents(labels, objective, output, text) / std::sqrt(static_cast<double>(n));
    TextRows rows{at::zeros({cotangents.size(0), count_entries(all)}, at::kDouble), {}};
    TensorList outputs;
    for (const auto& entry : tape.entries) {
      if (entry.kind == TapeEntry::Kind::kLinear) {
        const auto shape = {cotangents.size(0), entry.output.size(0), entry.output.size(1)};
        rows.layers.push_back(
            {entry.weight, entry.bias, entry.transposed, entry.input.detach(), at::zeros(shape, at::kDouble)});
        outputs.push_back(entry.output);
      }
    }
    for (std::int64_t r = 0; r < cotangents.size(0); ++r) {
      rows.gradients[r] = flatten(gradient(TensorList{output}, all, {cotangents[r]}, false, true)).detach();
      const auto signals = gradient(TensorList{output}, outputs, {cotangents[r]}, false, true);
      for (std::size_t l = 0; l < signals.size(); ++l) {
        rows.layers[l].signals[r] = signals[l].detach();
      }
    }
    out.push_back(std::move(rows));
  }
  return out;
}

/// Where a parameter lies in a flat vector.
struct Place {
  std::int64_t offset = 0, entries = 0;
};
inline std::map<std::string, Place> places_of(const ParameterSet& set) {
  std::map<std::string, Place> out;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < set.size(); ++i) {
    out[set.names()[i]] = {offset, set.values()[i].numel()};
    offset += set.values()[i].numel();
  }
  return out;
}

/// Entry (o, j) of a layer's matrix [out, in and bias] in a flat vector, o running slowest: [out (in + 1)], or [out in]
/// without a bias.
inline at::Tensor entries_of(const LayerUse& layer, const std::map<std::string, Place>& places) {
  const auto out = layer.signals.size(2), in = layer.input.size(1);
  std::vector<std::int64_t> entries;
  for (std::int64_t o = 0; o < out; ++o) {
    for (std::int64_t j = 0; j < in; ++j) {
      entries.push_back(places.at(layer.weight).offset + (layer.transposed ? j * out + o : o * in + j));
    }
    if (!layer.bias.empty()) {
      entries.push_back(places.at(layer.bias).offset + o);
    }
  }
  return at::tensor(entries, at::kLong);
}

/// [R, out, in and bias]: the sums over a text's tokens of signal input'.
inline at::Tensor layer_gradients(const LayerUse& layer) {
  const auto ones = at::ones({layer.input.size(0), layer.bias.empty() ? 0 : 1}, at::kDouble);
  return at::einsum("rto,tj->roj", {layer.signals, at::cat({layer.input, ones}, 1)});
}

/// The texts' uses of layer number `l`.
inline std::vector<LayerUse> uses_of(const std::vector<TextRows>& rows, std::size_t l) {
  std::vector<LayerUse> out;
  for (const auto& text : rows) {
    out.push_back(text.layers.at(l));
  }
  return out;
}

/// S (x) A, or with the eigenvalues that fit the gradients best in its eigenbasis: A the mean over texts of a a',
/// summed over tokens, S the sum over rows of the mean over tokens of g g'. [entries, entries] as entries_of() orders
/// them.
inline at::Tensor kronecker_block(bool corrected, const std::vector<LayerUse>& uses) {
  at::Tensor a, s;
  for (const auto& use : uses) {
    const auto input = at::cat({use.input, at::ones({use.input.size(0), use.bias.empty() ? 0 : 1}, at::kDouble)}, 1);
    const auto signals = use.signals.flatten(0, 1);
    const auto tokens = static_cast<double>(std::max<std::int64_t>(1, use.input.size(0)));
    const auto of_inputs = input.t().mm(input) / static_cast<double>(uses.size()),
               of_signals = signals.t().mm(signals) / tokens;
    a = a.defined() ? a + of_inputs : of_inputs;
    s = s.defined() ? s + of_signals : of_signals;
  }
  if (!corrected) {
    return at::kron(s, a);
  }
  const auto basis = at::kron(std::get<1>(at::linalg_eigh(s)), std::get<1>(at::linalg_eigh(a)));
  auto values = at::zeros({basis.size(0)}, at::kDouble);
  for (const auto& use : uses) {
    values += layer_gradients(use).flatten(1).mm(basis).square().sum(0);
  }
  return basis.mm(at::diag(values)).mm(basis.t());
}

/// d^2 / d theta d (theta, parent) of the texts' losses, an entry of the gradient at a time.
inline at::Tensor text_hessian(const CurvaturePoint& at_point) {
  const auto& [objective, theta, parent] = at_point;
  const auto point = leaves(theta), from = leaves(parent);
  auto all = point;
  all.insert(all.end(), from.begin(), from.end());
  const auto n = objective.data().size();
  auto total = at::zeros({}, at::kDouble);
  for (std::int64_t i = 0; i < n; ++i) {
    total = total + objective.example_losses(point, from, objective.data().batch(i, i + 1)).sum();
  }
  const auto slope = flatten(gradient(total / n, point, true));
  TensorList rows;
  for (std::int64_t k = 0; k < slope.numel(); ++k) {
    rows.push_back(flatten(gradient(slope[k], all, false, true)));
  }
  return at::stack(rows).detach();
}

/// Curvatures at a point as d^2 / d theta d (theta, parent), [P, P and entries of parent], with the penalty.
class TextTruth {
 public:
  explicit TextTruth(const CurvaturePoint& point) : point_(point) {
    for (const auto labels : {Labels::kExact, Labels::kSampled, Labels::kData}) {
      rows_[labels] = text_rows(labels, point);
    }
  }

  const std::vector<TextRows>& rows(Labels labels) const { return rows_.at(labels); }
  /// `curvature`, fitted to labels of this kind where it is fitted: its family, unless it draws labels or keeps less
  /// than its family has, when what it is must stand here. Cross blocks are the family's.
  at::Tensor of(const Curvature& curvature, Labels labels) const {
    const auto name = curvature.name();
    if (name == "fisher") {
      return gram(Labels::kSampled);
    }
    auto out = curvature.family() == CurvatureFamily::kHessian           ? hessian()
               : curvature.family() == CurvatureFamily::kEmpiricalFisher ? gram(Labels::kData)
                                                                         : gram(Labels::kExact);
    if (name == "diagonal" || name == "kfac" || name == "ekfac") {
      out.narrow(1, 0, out.size(0)).copy_(reduced(name, labels));
    }
    return out;
  }

 private:
  /// The diagonal, on which a matrix that is also an embedding counts use by use, and on top of it the layers' blocks.
  at::Tensor reduced(const std::string& name, Labels labels) const {
    const auto places = places_of(point_.objective.trained());
    const auto& texts = rows(labels);
    const auto p = count_entries(point_.theta);
    auto squares = at::zeros({p}, at::kDouble);
    for (const auto& text : texts) {
      auto gradients = text.gradients.narrow(1, 0, p).clone();
      for (const auto& use : text.layers) {
        if (tied(use.weight) && places.count(use.weight) > 0) {
          auto bare = use;
          bare.bias.clear();
          const auto entries = entries_of(bare, places);
          gradients.index_add_(1, entries, layer_gradients(bare).flatten(1).neg());
          const auto by_token = at::einsum("rto,tj->oj", {use.signals.square(), use.input.square()});
          squares.index_add_(0, entries, by_token.flatten());
        }
      }
      squares += gradients.square().sum(0);
    }
    auto out = at::diag(squares);
    for (std::size_t l = 0; name != "diagonal" && l < texts.front().layers.size(); ++l) {
      const auto uses = uses_of(texts, l);
      const auto& layer = uses.front();
      if (places.count(layer.weight) > 0 && !tied(layer.weight)) {
        const auto entries = entries_of(layer, places);
        const auto block = kronecker_block(name == "ekfac", uses);
        for (std::int64_t row = 0; row < entries.size(0); ++row) {
          out[entries[row].item<std::int64_t>()].index_put_({entries}, block[row]);
        }
      }
    }
    out.diagonal() += kTextDecay;
    return out;
  }
  at::Tensor gram(Labels labels) const {
    const auto p = count_entries(point_.theta);
    auto total = at::zeros({p, p + count_entries(point_.parent)}, at::kDouble);
    for (const auto& text : rows(labels)) {
      total += text.gradients.narrow(1, 0, p).t().mm(text.gradients);
    }
    total.diagonal() += kTextDecay;
    return total;
  }
  at::Tensor hessian() const {
    auto total = text_hessian(point_);
    total.diagonal() += kTextDecay;
    return total;
  }
  /// Whether a matrix is looked up too.
  bool tied(const std::string& weight) const {
    Tape tape;
    const auto& [objective, theta, parent] = point_;
    objective.output(theta, parent, objective.data().batch(0, 1), &tape);
    return std::any_of(tape.entries.begin(), tape.entries.end(), [&](const TapeEntry& entry) {
      return entry.kind == TapeEntry::Kind::kEmbedding && entry.weight == weight;
    });
  }

  CurvaturePoint point_;
  std::map<Labels, std::vector<TextRows>> rows_;
};

}  // namespace whence::test
