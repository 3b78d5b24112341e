#include "whence/attribution/self_influence.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "whence/attribution/started.h"
#include "whence/core/operation_count.h"
#include "whence/core/tensors.h"
#include "whence/curvature/example_norms.h"
#include "whence/curvature/gram_operator.h"

namespace whence {
namespace {

/// Multiplications of one example's forward pass, from what a few examples take.
double multiplications(const Stage& stage) {
  constexpr std::int64_t kLooked = 8;
  const auto& data = stage.objective.data();
  const auto batch = data.batch(0, std::min(data.size(), kLooked));
  const auto count =
      count_operations([&] { stage.objective.output(detach(stage.theta), detach(stage.parent), batch); });
  return count.multiplications / static_cast<double>(batch.size());
}

/// How the inverse is taken where the caller leaves it open.
struct Choice {
  std::string solver, reason;
};

Choice choose(const SelfInfluenceTask& task) {
  constexpr double kMinute = 5e11;  // multiplications, on the few cores that whoever waits for it has
  constexpr double kMostParameters = 5000;
  constexpr double kMostRows = 4000;
  constexpr double kProducts = 30;       // of a solve to a tolerance that rankings need
  constexpr double kPassesAProduct = 8;  // a Hessian product is two gradients and what they keep
  const auto& stage = task.chain[task.stage];
  const auto n = static_cast<double>(stage.objective.data().size());
  const auto p = static_cast<double>(stage.objective.trained().entries());
  const double product = n * kPassesAProduct * multiplications(stage);
  const bool damped = task.options.inversion == Inversion::kDamped && task.options.response != Response::kSegment;
  const double matrix = p * product + n * p * p + p * p * p * (damped ? 0.5 : 10);
  const double solves = n * kProducts * product;
  if (p <= kMostParameters && matrix <= kMinute) {
    return {"direct", fmt::format("exact, by the matrix of {} parameters", p)};
  }
  if (task.curvature->factored()) {
    return {"ekfac:residual=false", "by the curvature's own eigenvectors"};
  }
  const double most_rows = std::min(kMostRows, p);
  if (damped && task.curvature->is_semidefinite() && n <= most_rows && 4 * n * product <= kMinute) {
    const auto curvature = task.curvature->operator_at({stage.objective, stage.theta, stage.parent});
    const auto* gram = dynamic_cast<const GramOperator*>(curvature.get());
    if (gram != nullptr && static_cast<double>(gram->rows()) <= most_rows &&
        (task.options.relative_damping > 0 || gram->diagonal().min().item<double>() + task.options.damping > 0)) {
      return {"woodbury", fmt::format("exact, by the matrix of {} rows", gram->rows())};
    }
  }
  if (solves <= kMinute || !factored_by_layers({stage.objective, stage.theta, stage.parent})) {
    return {task.options.response == Response::kSegment ? "lanczos" : "cg:relative-tolerance=1e-3",
            fmt::format("{} solves", n)};
  }
  return {"ekfac:residual=false",
          fmt::format("approximate, by ekfac's factors: {} solves with {} parameters would take about {:.0f} minutes; "
                      "--solver cg makes them",
                      n, p, std::ceil(solves / kMinute))};
}

/// Scores of one block of the data: each example is the only query of its own score.
class Blocks {
 public:
  Blocks(const Stage& stage, ScoreSource& source) : stage_(stage), source_(source) {}

  at::Tensor scores(std::int64_t begin, std::int64_t end, std::vector<SolverSummary>& summaries,
                    const Progress& progress) {
    const auto& data = stage_.objective.data();
    const auto directions = source_.directions({data, Measurement::kLoss, begin, end}, {0}, progress)[0];
    directions.check_finite("an example's vector");
    summaries.insert(summaries.end(), directions.summaries.begin(), directions.summaries.end());
    return source_.scorer(0, directions, progress)->scores(data.batch(begin, end)).diagonal().to(at::kCPU, at::kDouble);
  }

 private:
  const Stage& stage_;
  ScoreSource& source_;
};

}  // namespace

std::string self_influence_plan(const SelfInfluenceTask& task) {
  return !task.attributor->uses_curvature() ? "by the method's own vectors"
         : task.solver == nullptr           ? choose(task).reason
                                            : "by the solver's matrix or factors, or a solve an example";
}

SelfInfluence self_influence(const SelfInfluenceTask& task, const Progress& progress) {
  const Chain alone{task.chain.at(task.stage)};
  const auto& stage = alone.front();
  check_measurable(stage);
  const auto& data = stage.objective.data();
  SelfInfluence out;
  out.how = "by the method's own vectors";
  auto solver = task.solver;
  const bool curved = task.attributor->uses_curvature();
  if (curved && solver == nullptr) {
    const auto choice = choose(task);
    out.how = choice.reason;
    solver = create<Solver>(choice.solver);
  } else if (!curved && solver == nullptr) {
    solver = create<Solver>("identity");  // asked for nothing
  }
  auto options = task.options;
  if (!options.least_damping.empty()) {
    options.least_damping = {options.least_damping.at(task.stage)};
  }
  const auto source = task.attributor->prepare(alone, {task.curvature, solver, options});
  source->check({0}, Measurement::kLoss, Normalization::kNone);
  const auto scorer = source->self_scorer();
  if (curved && (solver->takes_factors() || task.curvature->factored())) {
    out.approximate =
        !task.curvature->factored() || (scorer && !has_exact_forms({stage.objective, stage.theta, stage.parent}));
  }
  if (curved && task.solver != nullptr) {
    out.how = scorer ? "by the solver's matrix or factors" : fmt::format("{} solves", data.size());
  }
  Blocks blocks(stage, *source);
  const auto step = scorer ? stage.objective.batch_size() : task.block;
  const auto watch = [&](std::int64_t done) {
    report(progress, {"self-influence of " + stage.name, done, data.size(), ""});
  };
  TensorList parts;
  for (std::int64_t begin = 0; begin < data.size(); begin += step) {
    const auto end = std::min(data.size(), begin + step);
    watch(begin);
    parts.push_back(scorer ? scorer(data.batch(begin, end)).to(at::kCPU, at::kDouble)
                           : blocks.scores(begin, end, out.summaries, {}));
  }
  watch(data.size());
  out.scores = at::cat(parts);
  check_finite(out.scores, "an example's influence on itself");
  if (task.leverages && task.attributor->claim() == Claim::kRemoval) {
    std::vector<PredictedRemoval> removals;
    const auto rows = out.scores.argsort().slice(0, 0, kLookedForLeverage).contiguous();
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
      const auto row = rows[i].item<std::int64_t>();
      removals.push_back({row, row, -out.scores[row].item<double>() / static_cast<double>(data.size())});
    }
    double products = 0;
    for (const auto& summary : out.summaries) {
      products += std::max(0.0, summary.products);
    }
    out.leverages = find_leverages(alone, 0, *source, removals, data, Measurement::kLoss, products,
                                   static_cast<double>(out.summaries.size()));
  }
  if (const auto evidence = source->evidence(); !evidence.empty()) {
    out.evidence = evidence.front();
  }
  if (auto* tested = dynamic_cast<TestedSource*>(source.get()); tested != nullptr) {
    out.warnings = tested->warnings({0});
    out.notes = tested->notes({0});
  }
  return out;
}

}  // namespace whence
