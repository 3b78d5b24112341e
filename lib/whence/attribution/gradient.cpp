// Gradient products without curvature: the influence with the identity in the Hessian's place. G. Charpiat et al.,
// "Input Similarity from the Neural Network Perspective", NeurIPS 2019.
#include <ATen/ATen.h>

#include "whence/attribution/attributor.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

/// The measurement's gradient itself, in the parameters that a stage trains; a head belongs to its own stage alone.
class GradientSource : public DirectionSource {
 public:
  GradientSource(const Chain& chain, bool normalized) : chain_(chain), normalized_(normalized) {}

  std::vector<Directions> directions(const at::Tensor& measurement_gradients, std::size_t first,
                                     const Progress&) override {
    const auto& last = chain_.back();
    const auto measured = last.objective.merge(last.theta, last.parent);
    std::vector<Directions> out(chain_.size());
    for (auto k = first; k < chain_.size(); ++k) {
      const auto& stage = chain_[k];
      const auto& trained = stage.objective.trained();
      const auto merged = stage.objective.merge(stage.theta, stage.parent);
      TensorList columns;
      for (std::size_t i = 0; i < merged.size(); ++i) {
        const auto& name = merged.names()[i];
        const bool shared = trained.contains(name) && (k + 1 == chain_.size() || !name.starts_with("head."));
        columns.push_back(shared ? column(measured, name, measurement_gradients)
                                 : at::zeros({measurement_gradients.size(0), merged.values()[i].numel()},
                                             measurement_gradients.options()));
      }
      out[k].vectors = at::cat(columns, 1);
    }
    return out;
  }
  bool normalized() const override { return normalized_; }

 private:
  static at::Tensor column(const ParameterSet& set, const std::string& name, const at::Tensor& block) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; set.names()[i] != name; ++i) {
      offset += set.values()[i].numel();
    }
    return block.narrow(1, offset, set.at(name).numel());
  }

  const Chain& chain_;
  bool normalized_;
};

class GradientAttributor : public Attributor {
 public:
  explicit GradientAttributor(bool normalized) : normalized_(normalized) {}
  bool uses_curvature() const override { return false; }
  std::unique_ptr<DirectionSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<GradientSource>(chain, normalized_);
  }

 private:
  bool normalized_;
};

class GradientDot : public GradientAttributor {
 public:
  explicit GradientDot(NoOptions) : GradientAttributor(false) {}
};
class GradientCosine : public GradientAttributor {
 public:
  explicit GradientCosine(NoOptions) : GradientAttributor(true) {}
};

}  // namespace

WHENCE_METHOD(Attributor, grad_dot, GradientDot, NoOptions)
WHENCE_METHOD(Attributor, grad_cos, GradientCosine, NoOptions)

}  // namespace whence
