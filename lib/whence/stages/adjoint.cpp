#include "whence/stages/adjoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/curvature/spectral_operator.h"
#include "whence/stages/detail/solve_outcome.h"

namespace whence {

struct Adjoint::Prepared {
  /// What one segment's data did to its end, and what is left there of its beginning.
  struct Segment {
    TensorList theta;
    OperatorPtr curvature;
    at::Tensor root;  ///< [P]: the preconditioner's square root; undefined where steps follow the gradient.
    std::unique_ptr<Inverse> response, memory;
    Filter filter;
  };
  std::vector<Segment> segments;
  detail::ResidualJudge residuals;
};

namespace {

/// Throws where the choices are not the derivative of one objective.
void check_choices(const Chain& chain, const Curvature& curvature, const Solver& solver,
                   const InverseOptions& options) {
  const bool own_factors = curvature.factored() && solver.takes_factors();
  if (chain.size() > 1 && !own_factors && solver.family() && solver.family() != curvature.family()) {
    throw InvalidArgument(fmt::format(
        "the solver's factors approximate the {} matrix and the curvature is of the family {}: a chain that "
        "mixes them is the derivative of no objective; use --curvature {}",
        to_string(*solver.family()), to_string(curvature.family()), to_string(*solver.family())));
  }
  if (options.response == Response::kProximalBregman && curvature.family() != CurvatureFamily::kGaussNewton) {
    throw InvalidArgument(
        fmt::format("response proximal-bregman is the Gauss-Newton chain, and the curvature is of the family {}; use "
                    "--curvature gauss-newton, kfac, ekfac or diagonal, with labels other than data",
                    to_string(curvature.family())));
  }
  if (options.response == Response::kSegment && options.inversion != Inversion::kDamped) {
    throw InvalidArgument(
        fmt::format("response segment has a function of the eigenvalues of its own: inversion = {} "
                    "has no place, expected damped: use --inversion damped",
                    to_string(options.inversion)));
  }
}

/// Throws where nothing is known of a primed stage's response: its curvature is the exact Hessian alone, and of what
/// followed no objective's gradient there is none.
void check_primed(const Stage& stage, const Curvature& curvature) {
  const auto* inner = stage.objective.inner();
  if (inner == nullptr) {
    return;
  }
  if (!inner->priming().is_exact()) {
    throw InvalidArgument(
        fmt::format("stage {}: it was primed along gradients of the first order, which are no objective's, so no "
                    "influence goes through it: train it with order=exact in its priming, or ask at a later stage",
                    stage.name));
  }
  if (curvature.family() != CurvatureFamily::kHessian) {
    throw InvalidArgument(
        fmt::format("stage {}: it is primed, and the curvature of its objective, which contains the "
                    "inner steps, is its Hessian: use --curvature hessian",
                    stage.name));
  }
}

InverseProblem checked(InverseProblem problem) {
  if (!problem.curvature || !problem.solver) {
    throw InvalidArgument(fmt::format("influence needs a curvature and a solver: the {} is missing",
                                      problem.curvature ? "solver" : "curvature"));
  }
  return problem;
}

}  // namespace

Adjoint::Adjoint(Chain chain, InverseProblem problem)
    : chain_(std::move(chain)),
      problem_(checked(std::move(problem))),
      curvature_(*problem_.curvature),
      solver_(*problem_.solver),
      options_(problem_.options),
      prepared_(chain_.size()),
      evidence_(chain_.size()) {
  check_choices(chain_, curvature_, solver_, options_);
}

Adjoint::~Adjoint() = default;

std::vector<TensorList> Adjoint::points(std::size_t stage) const {
  const auto& trajectory = chain_[stage].trajectory;
  if (options_.response != Response::kSegment || trajectory.empty()) {
    return {chain_[stage].theta};
  }
  std::vector<TensorList> out;
  for (const auto& snapshot : trajectory) {
    out.push_back(snapshot.theta);
  }
  return out;
}

Adjoint::Prepared& Adjoint::prepared(std::size_t stage) {
  auto& slot = prepared_[stage];
  if (slot) {
    return *slot;
  }
  const auto& at = chain_[stage];
  check_stage(at);
  auto made = std::make_unique<Prepared>(Prepared{{}, {at, curvature_, options_}});
  auto& evidence = evidence_[stage];
  evidence.damping = options_.damping;
  const auto thetas = points(stage);
  evidence.points = static_cast<std::int64_t>(thetas.size());
  const bool semidefinite = curvature_.is_semidefinite();
  for (std::size_t i = 0; i < thetas.size(); ++i) {
    Prepared::Segment segment;
    segment.theta = thetas[i];
    segment.curvature = curvature_.operator_at({at.objective, segment.theta, at.parent});
    if (i == 0 && options_.relative_damping > 0) {
      constexpr std::int64_t kProbes = 32;
      evidence.mean_eigenvalue = mean_eigenvalue(*segment.curvature, kProbes, Random(0).stream("mean eigenvalue"));
      evidence.damping += options_.relative_damping * std::abs(evidence.mean_eigenvalue);
    }
    if (stage < options_.least_damping.size()) {
      evidence.damping = std::max(evidence.damping, options_.least_damping[stage]);
    }
    Filter filter{options_.inversion, evidence.damping};
    auto solved = segment.curvature;
    std::shared_ptr<const CurvaturePoint> point =
        std::make_shared<CurvaturePoint>(CurvaturePoint{at.objective, segment.theta, at.parent});
    if (options_.response == Response::kSegment) {
      filter.inversion = Inversion::kSegment;
      filter.time = at.trajectory.empty() ? options_.time : at.trajectory[i].time;
      filter.steps = at.trajectory.empty() ? options_.steps : at.trajectory[i].steps;
      if (!at.trajectory.empty() && !at.trajectory[i].preconditioner.empty()) {
        segment.root = widened(flatten(at.trajectory[i].preconditioner)).sqrt();
        const OperatorPtr scale = diagonal_operator(segment.root);
        solved = scale * solved * scale;
        point = nullptr;  // factors fitted at the point would be those of another system
      }
      auto left = filter;
      left.inversion = Inversion::kMemory;
      segment.memory = solver_.prepare({solved, left, point, semidefinite});
    }
    segment.response = solver_.prepare({solved, filter, point, semidefinite});
    evidence.solver = segment.response->picked();
    segment.filter = filter;
    made->segments.push_back(std::move(segment));
  }
  evidence.solved = true;
  slot = std::move(made);
  return *slot;
}

void Adjoint::check_stage(const Stage& stage) const {
  check_primed(stage, curvature_);
  const auto& path = stage.trajectory;
  const bool timed = path.empty()
                         ? options_.time > 0
                         : std::all_of(path.begin(), path.end(), [](const auto& segment) { return segment.time > 0; });
  if (options_.response == Response::kSegment && !timed) {
    throw InvalidArgument(fmt::format(
        "stage {}: response segment needs the sum of its learning rates: train it with sgd or adam and snapshots = 1 "
        "or more in the pipeline, or give segment:time=…,steps=…",
        stage.name));
  }
}

void Adjoint::check(std::size_t first) const {
  for (std::size_t k = first; k < chain_.size(); ++k) {
    const auto& stage = chain_[k];
    check_stage(stage);
    if (options_.response == Response::kSegment && k > first && stage.objective.tuning().starts_from_parent()) {
      throw InvalidArgument(fmt::format(
          "stage {}: its training starts at numbers made of stage {}'s, and response segment follows only a start at "
          "its parameters themselves or at none of them: use --response stationary, or ask at stage {}",
          stage.name, chain_[k - 1].name, stage.name));
    }
    try {
      curvature_.check({stage.objective, stage.theta, stage.parent}, k > first);
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(fmt::format("stage {}: {}", stage.name, error.what()));
    }
  }
}

void Adjoint::prepare(std::size_t first) {
  check(first);
  for (std::size_t k = chain_.size(); k-- > first;) {
    prepared(k);
  }
}

std::vector<StageAdjoint> Adjoint::sweep(const Directions& gradients, std::size_t first, const Progress& progress) {
  std::vector<StageAdjoint> out(chain_.size());
  auto cotangents = gradients;
  for (std::size_t k = chain_.size(); k-- > first;) {
    const auto& stage = chain_[k];
    const auto [right, passed_on] = pull_back_merge(stage, cotangents, k > first, k + 1 == chain_.size());
    const auto watch = [&](ProgressEvent event) {
      event.phase += " " + stage.name;
      report(progress, event);
    };
    auto q = right;  // on the end of the segment at hand
    auto handed = passed_on;
    TensorList vectors;
    auto& made = [&]() -> auto& {
      const ProgressScope scope(progress, {"prepare " + stage.name, 0, 0, ""});
      return prepared(k);
    }
    ();
    const auto& segments = made.segments;
    for (std::size_t i = segments.size(); i-- > 0;) {
      const auto& segment = segments[i];
      const auto scaled = segment.root.defined() ? q * segment.root : q;
      at::Tensor s;
      const ProgressScope scope(progress, {"solve " + stage.name, 0, 0, ""});
      auto summaries = segment.response->apply(scaled, s, watch);
      made.residuals.judge({scaled, s, segments.front().curvature, evidence_[k].damping, evidence_[k].solver}, swept_,
                           summaries);
      detail::add_summaries(out[k].summaries, summaries);
      detail::check_solves(stage, out[k].summaries, evidence_[k].damping);
      s = segment.root.defined() ? s * segment.root : s;
      check_finite(s, fmt::format("stage {}: an inverse-curvature product", stage.name).c_str());
      vectors.insert(vectors.begin(), s);
      if (k > first) {
        const ProgressScope mixed(progress, {"carry to " + chain_[k - 1].name, 0, 0, ""});
        handed = handed - curvature_.mixed_product({stage.objective, segment.theta, stage.parent}, s);
      }
      if (segment.memory && (i > 0 || k > first)) {
        segment.memory->apply(scaled, q, watch);
        q = segment.root.defined() ? q / segment.root : q;
      }
    }
    out[k].vectors = vectors.size() == 1 ? vectors[0] : at::cat(vectors, 1);
    if (k > first) {
      if (options_.response == Response::kSegment) {
        handed = handed.clone();
        for (const auto& [here, there, count] : entries_from_parent(stage)) {
          handed.narrow(1, there, count).add_(q.narrow(1, here, count));
        }
      }
      cotangents =
          directions_of(handed, stage.objective.parent_layout());  // and 0 on the head, which was not handed on
      check_finite(handed, fmt::format("stage {}: a pulled-back gradient", chain_[k - 1].name).c_str());
    }
  }
  pass_over(gradients.values().front().size(0));
  return out;
}

Adjoint::StageInverse Adjoint::inverse(std::size_t stage) {
  const auto& segments = prepared(stage).segments;
  if (segments.size() != 1 || segments[0].root.defined()) {
    throw InvalidArgument(fmt::format("stage {}: its response has no single inverse", chain_[stage].name));
  }
  return {*segments[0].response, segments[0].filter, segments[0].curvature};
}

const std::vector<StageEvidence>& Adjoint::evidence() {
  for (std::size_t k = 0; k < chain_.size(); ++k) {
    if (prepared_[k]) {
      evidence_[k].products = 0;
      for (const auto& segment : prepared_[k]->segments) {
        evidence_[k].products += segment.curvature->products();
      }
    }
  }
  return evidence_;
}

}  // namespace whence
