// Influence functions over a chain of stages. P. W. Koh and P. Liang, "Understanding Black-box Predictions via
// Influence Functions", ICML 2017, eq. 2; stages before the last by H. Chen et al., "Multi-Stage Influence Function",
// NeurIPS 2020.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/attribution/detail/gradient_source.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/curvature/example_norms.h"

namespace whence {
namespace {

class InfluenceSource : public detail::GradientSource {
 public:
  InfluenceSource(const Chain& chain, const InverseProblem& problem)
      : GradientSource(chain),
        adjoint_(chain, problem),
        family_(problem.curvature->family()),
        response_(problem.options.response),
        norms_(chain.size()) {}

  void check(const std::vector<std::size_t>& stages, Measurement measurement,
             Normalization normalization) const override {
    adjoint_.check(stages.front());
    GradientSource::check(stages, measurement, normalization);
    for (const auto k : stages) {
      const auto& at = chain_[k];
      if (normalization == Normalization::kRelatif && !factored_by_layers({at.objective, at.theta, at.parent})) {
        throw InvalidArgument(
            fmt::format("stage {}: relatif takes lengths by ekfac's factors, and not everything that the stage trains "
                        "is a layer's weight or bias: use --normalize cosine or none",
                        at.name));
      }
    }
  }
  void make_ready(const std::vector<std::size_t>& stages) override { adjoint_.prepare(stages.front()); }
  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress& progress) override {
    const ProgressScope scope(progress, {"differentiate the measurement", 0, 0, ""});
    const auto& last = chain_.back();
    const auto gradients = measurement_gradients(queries.measurement, last, queries.data, queries.begin, queries.end,
                                                 stages.front() + 1 == chain_.size()
                                                     ? moved_parameters(last)
                                                     : last.objective.merge(last.theta, last.parent).names());
    check_finite(gradients.values(), "a measurement's gradient");
    auto adjoints = adjoint_.sweep(gradients, stages.front(), progress);
    std::vector<QueryDirections> out(chain_.size());
    for (auto k = stages.front(); k < chain_.size(); ++k) {
      out[k] = {in_model(k, adjoints[k].vectors), std::move(adjoints[k].summaries)};
    }
    return out;
  }
  void pass_over(const QueryBlock& queries) override { adjoint_.pass_over(queries.size()); }
  /// relatif: the example's length in the inverse curvature, by ekfac's factors.
  at::Tensor example_norms(std::size_t stage, const Batch& batch, Normalization normalization) override {
    if (normalization != Normalization::kRelatif) {
      return GradientSource::example_norms(stage, batch, normalization);
    }
    if (!norms_[stage]) {
      const auto& at = chain_[stage];
      adjoint_.prepare(stage);  // also where an earlier run made all directions
      const double damping = adjoint_.evidence()[stage].damping;
      norms_[stage] = ekfac_example_norms({at.objective, at.theta, at.parent}, [damping](const at::Tensor& h) {
        const auto raised = h.clamp_min(0) + damping;
        return at::where(raised > 0, 1 / raised, at::zeros_like(raised));
      });
    }
    return norms_[stage](batch);
  }
  /// Through the inverse as a matrix or through its factors, where the solver has one of them.
  std::function<at::Tensor(const Batch&)> self_scorer() override {
    const auto& at = chain_[0];
    const bool preconditioned =
        response_ == Response::kSegment && !at.trajectory.empty() && !at.trajectory.front().preconditioner.empty();
    if (adjoint_.points(0).size() > 1 || preconditioned) {
      return {};  // several inverses, or one between roots
    }
    const auto [inverse, filter, curvature] = adjoint_.inverse(0);
    if (const auto root = inverse.root(); root.rows.defined()) {
      const auto like = algebra_options(at.theta.front().options());
      const std::shared_ptr<Scorer> products = scorer(0, {in_model(0, root.rows.to(like)), {}}, {});
      return [products, weights = root.weights](const Batch& batch) {
        return at::mv(products->scores(batch).to(at::kCPU, at::kDouble).square_().t(), weights).neg_();
      };
    }
    if (auto forms = kronecker_forms({at.objective, at.theta, at.parent}, inverse.factors(), of_block(filter))) {
      return [forms = std::move(forms)](const Batch& batch) { return forms(batch).neg_(); };
    }
    return {};
  }
  std::optional<LeaveOuts> leave_out(std::size_t stage, const at::Tensor& rows, double products,
                                     double passes) override {
    constexpr double kPassesAProduct = 6;  // forward ones
    const auto& at = chain_[stage];
    const double affordable = passes / kPassesAProduct / static_cast<double>(rows.numel());  // products an example
    if (response_ == Response::kSegment || affordable < 2 || at.objective.inner() != nullptr) {
      return std::nullopt;
    }
    const auto [inverse, filter, curvature] = adjoint_.inverse(stage);
    if (filter.inversion != Inversion::kDamped) {
      return std::nullopt;
    }
    const auto n = static_cast<double>(at.objective.data().size());
    TensorList gradients;
    std::vector<OperatorPtr> of_examples, of_penalty;
    const auto family = create<Curvature>(to_string(family_));
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
      const auto alone = at.objective.over(rows.narrow(0, i, 1));
      const auto point = leaves(at.theta);
      gradients.push_back(widened(
          flatten(gradient(alone.example_losses(point, detach(at.parent), alone.data().batch(0, 1)).sum(), point))));
      of_examples.push_back(family->operator_at({alone, at.theta, at.parent}));
      of_penalty.push_back(family->operator_at({alone.with_weights(at::zeros({1}, at::kDouble)), at.theta, at.parent}));
    }
    const auto g = at::stack(gradients);
    LeaveOuts out{at::empty({rows.numel()}, at::kDouble), {}, products + 1 > affordable};
    if (out.from_below) {
      const auto steps = static_cast<std::int64_t>(affordable) - 1;
      const auto short_solve = create<Solver>(fmt::format("cg:max-iterations={},relative-tolerance=1e-3", steps));
      short_solve->prepare({curvature, filter})->apply(g, out.moves, {});
    } else {
      inverse.apply(g, out.moves, {});
    }
    const auto energies = row_dots(out.moves, damped(curvature, filter.damping)->apply(out.moves));
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
      const auto u = out.moves.narrow(0, i, 1);
      const auto own =
          of_examples[static_cast<std::size_t>(i)]->apply(u) - of_penalty[static_cast<std::size_t>(i)]->apply(u);
      out.leverages[i] = row_dots(u, own)[0] / (n * energies[i]);
    }
    out.moves = out.moves / (n * (1 - out.leverages)).unsqueeze(1).to(out.moves.options());
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

 protected:
  std::vector<Point> points(std::size_t stage) const override {
    std::vector<Point> out;
    for (const auto& theta : adjoint_.points(stage)) {
      out.push_back({chain_[stage].objective.merge(theta, chain_[stage].parent)});
    }
    return out;
  }

 private:
  /// Vectors [K, S P] of the trained parameters at each of the stage's S points as directions of the model's.
  std::vector<Directions> in_model(std::size_t stage, const at::Tensor& vectors) const {
    const auto thetas = adjoint_.points(stage);
    const auto width = vectors.size(1) / static_cast<std::int64_t>(thetas.size());
    std::vector<Directions> out;
    auto at = chain_[stage];
    for (std::size_t i = 0; i < thetas.size(); ++i) {
      at.theta = thetas[i];
      out.push_back(push_forward(at, vectors.narrow(1, static_cast<std::int64_t>(i) * width, width)));
    }
    return out;
  }

  Adjoint adjoint_;
  CurvatureFamily family_;
  Response response_;
  std::vector<std::function<at::Tensor(const Batch&)>> norms_;
};

class Influence : public Attributor {
 public:
  explicit Influence(NoOptions) {}
  bool uses_curvature() const override { return true; }
  Claim claim() const override { return Claim::kRemoval; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem& problem) const override {
    return std::make_unique<InfluenceSource>(chain, problem);
  }
};

}  // namespace

WHENCE_METHOD(Attributor, influence, Influence, NoOptions)

}  // namespace whence
