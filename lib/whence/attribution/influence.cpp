// Influence functions over a chain of stages. P. W. Koh and P. Liang, "Understanding Black-box Predictions via
// Influence Functions", ICML 2017, eq. 2; stages before the last by H. Chen et al., "Multi-Stage Influence Function",
// NeurIPS 2020.
#include <ATen/ATen.h>

#include "whence/attribution/attributor.h"

namespace whence {
namespace {

class InfluenceSource : public DirectionSource {
 public:
  InfluenceSource(const Chain& chain, const InverseProblem& problem)
      : chain_(chain), adjoint_(chain, problem.curvature, problem.solver, problem.options) {}

  std::vector<Directions> directions(const at::Tensor& measurement_gradients, std::size_t first,
                                     const Progress& progress) override {
    auto adjoints = adjoint_.sweep(measurement_gradients, first, progress);
    std::vector<Directions> out(chain_.size());
    for (auto k = first; k < chain_.size(); ++k) {
      out[k] = {push_forward(chain_[k], adjoints[k].vectors), std::move(adjoints[k].summaries)};
    }
    return out;
  }
  std::vector<StageEvidence> evidence() override { return adjoint_.evidence(); }

 private:
  const Chain& chain_;
  Adjoint adjoint_;
};

class Influence : public Attributor {
 public:
  explicit Influence(NoOptions) {}
  bool uses_curvature() const override { return true; }
  std::unique_ptr<DirectionSource> prepare(const Chain& chain, const InverseProblem& problem) const override {
    return std::make_unique<InfluenceSource>(chain, problem);
  }
};

}  // namespace

WHENCE_METHOD(Attributor, influence, Influence, NoOptions)

}  // namespace whence
