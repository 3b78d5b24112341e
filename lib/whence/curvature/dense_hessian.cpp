#include "whence/curvature/detail/dense_hessian.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "whence/core/rounding.h"
#include "whence/curvature/detail/layer_layout.h"
#include "whence/models/dense_layers.h"
#include "whence/models/ops.h"

namespace whence::detail {
namespace {

/// Entries of one tangent block that are worked on together: they stay in the cache.
constexpr std::int64_t kChunkEntries = 1 << 18;

/// One layer at the point, for the examples of a batch.
struct Layer {
  LayerLayout::Layer place;
  at::Tensor weight;     ///< [out, in]
  at::Tensor input;      ///< a [N, in]
  at::Tensor signal;     ///< delta [N, out]: the gradient of the weighted losses at the layer's output.
  at::Tensor slope;      ///< [N, out] of the activation after the layer; undefined at the last.
  at::Tensor curvature;  ///< [N, out]: the activation's second derivative times the gradient behind it.
};

class DenseHessianPiece : public Piece {
 public:
  DenseHessianPiece(const CurvaturePoint& at, const Batch& batch, const LayerLayout& layout,
                    const std::string& activation_name)
      : examples_(batch.size()) {
    const auto& objective = at.objective;
    const auto merged = objective.merge(detach(at.theta), detach(at.parent));
    auto x = inputs_like(merged, batch.inputs).flatten(1);
    TensorList second_derivatives;
    for (std::size_t l = 0; l < layout.layers().size(); ++l) {
      const auto& place = layout.layers()[l];
      Layer layer{place, widened(merged.at(place.name + ".weight")), widened(x), {}, {}, {}};
      const auto z = linear(merged, place.name, x, nullptr).detach();
      x = z;
      if (l + 1 < layout.layers().size()) {
        const c10::AutoGradMode with_grad(true);
        const auto free = z.requires_grad_(true);
        const auto value = activation(activation_name, free);
        const auto slope = gradient(value.sum(), TensorList{free}, true)[0];
        second_derivatives.push_back(
            widened(slope.requires_grad() ? gradient(slope.sum(), TensorList{free})[0] : at::zeros_like(z)));
        layer.slope = widened(slope.detach());
        x = value.detach();
      }
      layers_.push_back(std::move(layer));
    }
    const auto weights = objective.batch_weights(batch);
    const auto root = objective.loss().hessian_root(x, batch);
    output_hessian_ = at::bmm(root, root.transpose(1, 2)) * weights.view({-1, 1, 1});
    const c10::AutoGradMode with_grad(true);
    const auto free = widened(x).detach().requires_grad_(true);
    layers_.back().signal = gradient((objective.loss().per_example(free, batch) * weights).sum(), TensorList{free})[0];
    for (std::size_t l = layers_.size() - 1; l-- > 0;) {
      const auto behind = at::mm(layers_[l + 1].signal, layers_[l + 1].weight);
      layers_[l].signal = behind * layers_[l].slope;
      layers_[l].curvature = behind * second_derivatives[l];
    }
  }

  void add_product(const at::Tensor& x, at::Tensor& out) const override {
    const c10::NoGradGuard no_grad;
    const auto count = x.size(0);
    std::int64_t widest = 1, deepest = 1;
    TensorList directions, across, sums;  // V [K, out, in]; the same as [out, K in]; what is added up for the result
    for (const auto& layer : layers_) {
      widest = std::max(widest, layer.place.outputs);
      deepest = std::max(deepest, layer.place.inputs);
      directions.push_back(x.narrow(1, layer.place.weight, layer.weight.numel())
                               .reshape({count, layer.place.outputs, layer.place.inputs}));
      across.push_back(directions.back().transpose(0, 1).reshape({layer.place.outputs, -1}));
      sums.push_back(at::zeros({count * layer.place.outputs, layer.place.inputs}, x.options()));
    }
    // no fewer than a layer has inputs, or adding up its gradients would cost more than computing them
    const auto step = std::max(deepest, kChunkEntries / (count * widest));
    for (std::int64_t begin = 0; begin < examples_; begin += step) {
      add_chunk(begin, std::min(step, examples_ - begin), x, directions, across, sums, out);
    }
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      out.narrow(1, layers_[l].place.weight, layers_[l].weight.numel()).add_(sums[l].view({count, -1}));
    }
  }

 private:
  /// Examples begin .. begin + n - 1: tangents forward, then tangents of the signals backward.
  void add_chunk(std::int64_t begin, std::int64_t n, const at::Tensor& x, const TensorList& directions,
                 const TensorList& across, TensorList& sums, at::Tensor& out) const {
    const auto count = x.size(0);
    const auto part = [&](const at::Tensor& of) { return of.narrow(0, begin, n); };
    TensorList z(layers_.size()),
        a(layers_.size());  // of outputs [n, K, out]; of inputs [n, K, in], undefined at first
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const auto& layer = layers_[l];
      const auto flat = directions[l].reshape({count * layer.place.outputs, layer.place.inputs}).t();
      const auto input = part(layer.input);
      z[l] = layer.place.bias >= 0
                 ? at::addmm(x.narrow(1, layer.place.bias, layer.place.outputs).reshape({1, -1}), input, flat)
                 : at::mm(input, flat);
      z[l] = z[l].view({n, count, layer.place.outputs});
      if (l > 0) {
        z[l].view({n * count, -1}).addmm_(a[l].view({n * count, -1}), layer.weight.t());
      }
      if (l + 1 < layers_.size()) {
        a[l + 1] = z[l] * part(layer.slope).unsqueeze(1);
      }
    }
    auto g = at::bmm(z.back(), part(output_hessian_));  // [n, K, out]
    for (auto l = layers_.size(); l-- > 0;) {
      const auto& layer = layers_[l];
      sums[l].addmm_(g.view({n, -1}).t(), part(layer.input));
      if (layer.place.bias >= 0) {
        out.narrow(1, layer.place.bias, layer.place.outputs).add_(g.sum(0));
      }
      if (l == 0) {
        break;
      }
      const auto signal = part(layer.signal);
      const auto cross = at::mm(signal.t(), a[l].view({n, -1}));  // [out, K in]
      sums[l].view({count, layer.place.outputs, -1}).add_(cross.view({layer.place.outputs, count, -1}).transpose(0, 1));
      auto behind = at::mm(signal, across[l]).view({n * count, -1});
      behind.addmm_(g.view({n * count, -1}), layer.weight);
      g = behind.view({n, count, -1}).mul_(part(layers_[l - 1].slope).unsqueeze(1));
      g.addcmul_(part(layers_[l - 1].curvature).unsqueeze(1), z[l - 1]);
    }
  }

  std::int64_t examples_;
  std::vector<Layer> layers_;
  at::Tensor output_hessian_;  ///< [N, C, C], weighted.
};

}  // namespace

PieceMaker dense_hessian_pieces(const CurvaturePoint& point) {
  const auto* dense = dynamic_cast<const DenseLayers*>(&point.objective.model());
  const auto layout = dense != nullptr ? trained_layout(point) : std::nullopt;
  if (!layout) {
    return {};
  }
  const auto names = dense->layers();
  const auto& layers = layout->layers();
  const bool whole =
      std::equal(layers.begin(), layers.end(), names.begin(), names.end(),
                 [](const auto& layer, const auto& name) { return layer.name == name && layer.weight >= 0; });
  if (!whole) {
    return {};
  }
  return [layout = *layout, word = dense->activation_name()](const CurvaturePoint& at, const Batch& batch) {
    return std::make_unique<DenseHessianPiece>(at, batch, layout, word);
  };
}

}  // namespace whence::detail
