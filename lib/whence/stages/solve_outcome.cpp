#include "whence/stages/detail/solve_outcome.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/stages/choice.h"

namespace whence::detail {
namespace {

TensorList in_double(const TensorList& values) {
  TensorList out;
  for (const auto& value : values) {
    out.push_back(value.detach().to(at::kDouble));
  }
  return out;
}

/// The matrix of a family at a stage, in float64; null where the family cannot be had of the model.
OperatorPtr exact_in_double(CurvatureFamily family, const Stage& stage) {
  const auto* by_products = family == CurvatureFamily::kGaussNewton ? ",rows=false" : "";  // of which there are few
  const auto spec = fmt::format("{}:graph-bytes=0{}", to_string(family), by_products);
  try {
    return create<Curvature>(spec)->operator_at(
        {stage.objective.to(at::kDouble), in_double(stage.theta), in_double(stage.parent)});
  } catch (const InvalidArgument&) {
    return nullptr;
  }
}

}  // namespace

void check_solves(const Stage& stage, const std::vector<SolverSummary>& summaries, double damping) {
  for (const auto& summary : summaries) {
    if (summary.termination == Termination::kIndefinite) {
      const double met = summary.smallest_ritz;  // of the damped system
      throw IndefiniteCurvature(fmt::format(
          "stage {}: the curvature with damping {:.3g} is not positive definite: {}; type {}--damping {}", stage.name,
          damping, summary.message,
          stage.objective.has_gauss_newton()
              ? fmt::format("--curvature gauss-newton --damping {}, whose curvature is never negative, or ",
                            kTrainingDamping)
              : std::string(),
          met < 0 ? fmt::format("{:.2g} or more", damping - 2 * met) : std::string("with a larger number")));
    }
    if (summary.termination == Termination::kDiverged) {
      throw NumericalError(fmt::format("stage {}: the solve diverged: {}; --solver auto picks one that cannot",
                                       stage.name, summary.message));
    }
  }
}

void add_summaries(std::vector<SolverSummary>& total, const std::vector<SolverSummary>& part) {
  if (total.empty()) {
    total = part;
    return;
  }
  for (std::size_t k = 0; k < total.size(); ++k) {
    const bool worse =
        total[k].termination == Termination::kConverged && part[k].termination != Termination::kConverged;
    auto& sum = total[k];
    if (worse) {
      sum.termination = part[k].termination;
      sum.message = part[k].message;
    }
    sum.iterations += part[k].iterations;
    sum.relative_residual = std::max(sum.relative_residual, part[k].relative_residual);
    sum.energy_growth = std::max(sum.energy_growth, part[k].energy_growth);
    sum.seconds += part[k].seconds;
    sum.products += part[k].products;
    sum.smallest_ritz = std::fmin(sum.smallest_ritz, part[k].smallest_ritz);
    sum.largest_ritz = std::fmax(sum.largest_ritz, part[k].largest_ritz);
  }
}

void ResidualJudge::judge(const Solved& solved, std::int64_t swept, std::vector<SolverSummary>& summaries) {
  const auto& at = stage_;
  const auto type = at.theta.front().scalar_type();
  const bool factored = curvature_.factored();
  auto own = factored ? curvature_.name() + "'s own factors" : curvature_.name();
  if (epsilon(type) > epsilon(at::kFloat)) {
    own += fmt::format(" as passes in {} see it", dtype_name(type));
  }
  for (auto& summary : summaries) {
    summary.residual_of = own;
    if (factored && summary.termination == Termination::kConverged) {
      summary.termination = Termination::kApproximate;
      summary.message += fmt::format("; a residual of {:.1e} |b| of {}", summary.relative_residual, own);
    }
  }
  const auto failed = [](const SolverSummary& summary) {
    return summary.termination == Termination::kIndefinite || summary.termination == Termination::kDiverged;
  };
  const bool narrow = type != at::kDouble;
  const bool unmeasured = summaries.front().relative_residual < 0;
  const bool exact = curvature_.is_exact();
  if (options_.response == Response::kSegment || std::any_of(summaries.begin(), summaries.end(), failed) ||
      !(factored || unmeasured || (exact && narrow))) {
    return;
  }
  if (looks_ < 0) {
    constexpr double kPassesAProduct = 6, kMost = 4;
    const double passes = at.objective.affordable_passes(at.theta, at.parent);
    looks_ = static_cast<std::int64_t>(std::min(kMost, passes / kPassesAProduct));
  }
  const auto count = std::min(looks_ - swept, solved.b.size(0));
  if (count <= 0) {
    return;
  }
  const ProgressScope scope(fmt::format("the residual of {}", to_string(curvature_.family())));
  if (!exact_) {
    exact_ = factored || (exact && narrow) ? exact_in_double(curvature_.family(), at) : solved.curvature;
    if (!exact_) {
      looks_ = 0;
      return;
    }
  }
  const auto wide = [&](const at::Tensor& rows) { return rows.narrow(0, 0, count).to(at::kDouble); };
  const auto residuals =
      relative_residuals({exact_, {options_.inversion, solved.damping}}, wide(solved.b), wide(solved.x));
  if (swept + count >= looks_) {
    exact_.reset();  // and its copy of the data
  }
  for (std::size_t k = 0; k < residuals.size(); ++k) {
    auto& summary = summaries[k];
    constexpr double kExplained = 10, kTelling = 1e-3;
    const double told = std::exchange(summary.relative_residual, residuals[k]);
    summary.residual_of = factored || exact ? std::string(to_string(curvature_.family())) : own;
    if (!factored && !unmeasured && summary.termination == Termination::kConverged &&
        residuals[k] > std::max(kTelling, kExplained * told)) {
      summary.termination = Termination::kIterationLimit;
      const auto& picked = solved.solver;
      summary.message =
          fmt::format("{} in {} leaves a residual of {:.1e} |b|, which is {:.1e} in float64: rounding; {}",
                      picked.empty() ? "the solve" : picked.substr(0, picked.find(':')), dtype_name(type), told,
                      residuals[k], rounding_remedy(type));
    }
  }
}

}  // namespace whence::detail
