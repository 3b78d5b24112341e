// Influence functions over a chain of stages. P. W. Koh and P. Liang, "Understanding Black-box Predictions via
// Influence Functions", ICML 2017, eq. 2; stages before the last by H. Chen et al., "Multi-Stage Influence Function",
// NeurIPS 2020.
#include <ATen/ATen.h>

#include "whence/attribution/detail/gradient_source.h"

namespace whence {
namespace {

class InfluenceSource : public detail::GradientSource {
 public:
  InfluenceSource(const Chain& chain, const InverseProblem& problem)
      : GradientSource(chain), adjoint_(chain, problem.curvature, problem.solver, problem.options) {}

  void check(const std::vector<std::size_t>&, Measurement, Normalization normalization) const override {
    if (normalization == Normalization::kRelatif) {
      throw InvalidArgument(
          "normalize = relatif with influence: that takes the inverse curvature at every example's gradient, which no "
          "solver here gives; use cosine, or relatif with grad-dot, trak or logra");
    }
  }

  std::vector<Directions> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                     const Progress& progress) override {
    const auto gradients =
        measurement_gradients(queries.measurement, chain_.back(), queries.data, queries.begin, queries.end);
    check_finite(gradients, "a measurement's gradient");
    auto adjoints = adjoint_.sweep(gradients, stages.front(), progress);
    std::vector<Directions> out(chain_.size());
    for (auto k = stages.front(); k < chain_.size(); ++k) {
      out[k] = {push_forward(chain_[k], adjoints[k].vectors), std::move(adjoints[k].summaries)};
    }
    return out;
  }
  std::vector<StageEvidence> evidence() override { return adjoint_.evidence(); }
  /// A stage's head counts here too: it moves with the body.
  std::vector<std::string> parameters(std::size_t stage) const override {
    return chain_[stage].objective.trained().names();
  }
  /// With what a solver of Krylov's kind keeps beside: right-hand side, solution, residual, direction, product.
  MethodCost cost(std::size_t stage, std::int64_t query_block) const override {
    auto out = GradientSource::cost(stage, query_block);
    out.bytes *= 4;
    return out;
  }

 private:
  Adjoint adjoint_;
};

class Influence : public Attributor {
 public:
  explicit Influence(NoOptions) {}
  bool uses_curvature() const override { return true; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem& problem) const override {
    return std::make_unique<InfluenceSource>(chain, problem);
  }
};

}  // namespace

WHENCE_METHOD(Attributor, influence, Influence, NoOptions)

}  // namespace whence
