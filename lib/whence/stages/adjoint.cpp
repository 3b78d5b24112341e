#include "whence/stages/adjoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/curvature/spectral_operator.h"
#include "whence/stages/choice.h"

namespace whence {
namespace {

/// What of merge() is a function of theta, which are leaves. A parameter that is trained as it is stands there itself.
ParameterSet moved_by(const TensorList& theta, const TensorList& parent, const Objective& objective) {
  const auto merged = objective.merge(theta, detach(parent));
  ParameterSet out;
  for (std::size_t i = 0; i < merged.size(); ++i) {
    if (merged.values()[i].requires_grad()) {
      out.add(merged.names()[i], merged.values()[i]);
    }
  }
  return out;
}

/// Split into what falls on theta and, where `parents` too, on the parent, [K, P] each: K cotangents of the model's
/// parameters, or, of a stage that is not the `last`, of the body that it hands on.
std::pair<at::Tensor, at::Tensor> pull_back_merge(const Stage& stage, const Directions& cotangents, bool parents,
                                                  bool last) {
  const auto theta = leaves(widened(stage.theta));
  const auto parent = parents ? leaves(widened(stage.parent)) : widened(detach(stage.parent));
  const auto merged = last ? stage.objective.merge(theta, parent) : stage.objective.hand_on(theta, parent);
  TensorList values, blocks;
  for (std::size_t i = 0; i < cotangents.size(); ++i) {
    const auto& value = merged.at(cotangents.names()[i]);
    if (value.requires_grad()) {
      values.push_back(value);
      blocks.push_back(cotangents.values()[i]);
    }
  }
  auto both = theta;
  if (parents) {
    both.insert(both.end(), parent.begin(), parent.end());
  }
  const auto split = count_entries(theta), count = cotangents.values().front().size(0);
  auto out = at::zeros({count, count_entries(both)}, cotangents.values().front().options());
  for (std::int64_t k = 0; k < count && !values.empty(); ++k) {
    TensorList rows;
    for (const auto& block : blocks) {
      rows.push_back(block[k]);
    }
    out[k] = flatten(gradient(values, both, rows, false, true));
  }
  return {out.narrow(1, 0, split).contiguous(), out.narrow(1, split, out.size(1) - split).contiguous()};
}

/// A solve without a usable answer ends the call, with the remedy.
void check_solves(const Stage& stage, const StageAdjoint& adjoint, double damping) {
  for (const auto& summary : adjoint.summaries) {
    if (summary.termination == Termination::kIndefinite) {
      const double met = summary.smallest_ritz;  // of the damped system
      throw IndefiniteCurvature(fmt::format(
          "stage {}: the curvature with damping {:.3g} is not positive definite: {}; type --curvature gauss-newton "
          "--relative-damping {:g}, whose curvature is never negative, or --damping {}",
          stage.name, damping, summary.message, kRelativeDamping,
          met < 0 ? fmt::format("{:.2g} or more", damping - 2 * met) : std::string("with a larger number")));
    }
    if (summary.termination == Termination::kDiverged) {
      throw NumericalError(fmt::format("stage {}: the solve diverged: {}; --solver auto picks one that cannot",
                                       stage.name, summary.message));
    }
  }
}

/// Whether training of the stage began at its parent, for each trained entry that is also the parent's: where in the
/// parent it lies.
std::vector<std::array<std::int64_t, 3>> entries_from_parent(const Stage& stage) {
  std::vector<std::array<std::int64_t, 3>> out;  // offset in theta, offset in the parent, length
  const auto& trained = stage.objective.trained();
  const auto& parent = stage.objective.parent_layout();
  std::int64_t here = 0;
  for (std::size_t i = 0; i < trained.size(); ++i) {
    std::int64_t there = 0;
    for (std::size_t j = 0; j < parent.size(); ++j) {
      if (parent.names()[j] == trained.names()[i]) {
        out.push_back({here, there, trained.values()[i].numel()});
      }
      there += parent.values()[j].numel();
    }
    here += trained.values()[i].numel();
  }
  return out;
}

/// Of one block solved in several parts: the worst outcome, and what all of them cost.
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
    sum.seconds += part[k].seconds;
    sum.products += part[k].products;
    sum.smallest_ritz = std::fmin(sum.smallest_ritz, part[k].smallest_ritz);
    sum.largest_ritz = std::fmax(sum.largest_ritz, part[k].largest_ritz);
  }
}

struct SegmentOptions {
  double time = 0;
  std::int64_t steps = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("time", self.time, kAtLeastZero, "sum of the learning rates, over 1 - momentum, of stages without snapshots");
    field("steps", self.steps, kAtLeastZero, "how many they were; 0: infinitely many small ones");
  }
};

constexpr std::array<std::pair<Response, std::string_view>, 3> kResponses{
    {{Response::kStationary, "stationary"},
     {Response::kProximalBregman, "proximal-bregman"},
     {Response::kSegment, "segment"}}};

}  // namespace

std::string_view to_string(Response response) { return kResponses[static_cast<std::size_t>(response)].second; }

void set_response(std::string_view spec, InverseOptions& options) {
  const auto word = spec.substr(0, spec.find(':'));
  const auto rest = word.size() == spec.size() ? std::string_view{} : spec.substr(word.size() + 1);
  std::vector<std::string> known;
  for (const auto& [value, name] : kResponses) {
    known.emplace_back(name);
    if (name != word) {
      continue;
    }
    options.response = value;
    if (value == Response::kSegment) {
      const auto given = parse<SegmentOptions>(rest, "response segment");
      options.time = given.time;
      options.steps = given.steps;
    } else {
      parse<NoOptions>(rest, fmt::format("response {}", name));
    }
    return;
  }
  throw InvalidArgument(unknown_name("response", word, known));
}

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
  std::int64_t looks = -1;  ///< First measurements whose residuals are taken of the exact matrix; -1: not known yet.
  OperatorPtr exact;        ///< That matrix, where a residual was measured.
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
  check_primed(at, curvature_);
  auto made = std::make_unique<Prepared>();
  auto& evidence = evidence_[stage];
  evidence.damping = options_.damping;
  const auto thetas = points(stage);
  evidence.points = static_cast<std::int64_t>(thetas.size());
  for (std::size_t i = 0; i < thetas.size(); ++i) {
    Prepared::Segment segment;
    segment.theta = thetas[i];
    segment.curvature = curvature_.operator_at({at.objective, segment.theta, at.parent});
    if (i == 0 && options_.relative_damping > 0) {
      constexpr std::int64_t kProbes = 32;
      evidence.mean_eigenvalue = mean_eigenvalue(*segment.curvature, kProbes, Random(0).stream("mean eigenvalue"));
      evidence.damping += options_.relative_damping * std::abs(evidence.mean_eigenvalue);
    }
    Filter filter{options_.inversion, evidence.damping};
    auto solved = segment.curvature;
    std::shared_ptr<const CurvaturePoint> point =
        std::make_shared<CurvaturePoint>(CurvaturePoint{at.objective, segment.theta, at.parent});
    if (options_.response == Response::kSegment) {
      filter.inversion = Inversion::kSegment;
      filter.time = at.trajectory.empty() ? options_.time : at.trajectory[i].time;
      filter.steps = at.trajectory.empty() ? options_.steps : at.trajectory[i].steps;
      if (!(filter.time > 0)) {
        throw InvalidArgument(fmt::format(
            "stage {}: response segment needs the sum of its learning rates: train it with sgd or adam and snapshots = "
            "1 or more in the pipeline, or give segment:time=…,steps=…",
            at.name));
      }
      if (!at.trajectory.empty() && !at.trajectory[i].preconditioner.empty()) {
        segment.root = widened(flatten(at.trajectory[i].preconditioner)).sqrt();
        const OperatorPtr scale = diagonal_operator(segment.root);
        solved = scale * solved * scale;
        point = nullptr;  // factors fitted at the point would be those of another system
      }
      auto left = filter;
      left.inversion = Inversion::kMemory;
      segment.memory = solver_.prepare({solved, left, point});
    }
    segment.response = solver_.prepare({solved, filter, point});
    evidence.solver = segment.response->picked();
    segment.filter = filter;
    made->segments.push_back(std::move(segment));
  }
  evidence.solved = true;
  slot = std::move(made);
  return *slot;
}

void Adjoint::check(std::size_t first) const {
  for (std::size_t k = first; k < chain_.size(); ++k) {
    const auto& stage = chain_[k];
    check_primed(stage, curvature_);
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
    auto& segments = [&]() -> auto& {
      const ProgressScope scope(progress, {"prepare " + stage.name, 0, 0, ""});
      return prepared(k).segments;
    }
    ();
    for (std::size_t i = segments.size(); i-- > 0;) {
      const auto& segment = segments[i];
      const auto scaled = segment.root.defined() ? q * segment.root : q;
      at::Tensor s;
      const ProgressScope scope(progress, {"solve " + stage.name, 0, 0, ""});
      auto summaries = segment.response->apply(scaled, s, watch);
      judge(k, scaled, s, summaries);
      add_summaries(out[k].summaries, summaries);
      check_solves(stage, out[k], evidence_[k].damping);
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
        for (const auto& [here, there, length] : entries_from_parent(stage)) {
          handed.narrow(1, there, length).add_(q.narrow(1, here, length));
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

/// Says of what the residuals are, and measures the first ones against the exact matrix where that is cheap.
void Adjoint::judge(std::size_t stage, const at::Tensor& b, const at::Tensor& x,
                    std::vector<SolverSummary>& summaries) {
  const auto& at = chain_[stage];
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
  auto& made = *prepared_[stage];
  if (made.looks < 0) {
    constexpr double kPassesAProduct = 6, kMost = 4;
    const double passes = at.objective.affordable_passes(at.theta, at.parent);
    made.looks = static_cast<std::int64_t>(std::min(kMost, passes / kPassesAProduct));
  }
  const auto count = std::min(made.looks - swept_, b.size(0));
  if (count <= 0) {
    return;
  }
  const ProgressScope scope(fmt::format("the residual of {}", to_string(curvature_.family())));
  if (!made.exact) {
    made.exact =
        factored || (exact && narrow) ? exact_in_double(curvature_.family(), at) : made.segments.front().curvature;
    if (!made.exact) {
      made.looks = 0;
      return;
    }
  }
  const auto wide = [&](const at::Tensor& rows) { return rows.narrow(0, 0, count).to(at::kDouble); };
  const auto residuals =
      relative_residuals({made.exact, {options_.inversion, evidence_[stage].damping}}, wide(b), wide(x));
  if (swept_ + count >= made.looks) {
    made.exact.reset();  // and its copy of the data
  }
  for (std::size_t k = 0; k < residuals.size(); ++k) {
    auto& summary = summaries[k];
    constexpr double kExplained = 10, kTelling = 1e-3;
    const double told = std::exchange(summary.relative_residual, residuals[k]);
    summary.residual_of = factored || exact ? std::string(to_string(curvature_.family())) : own;
    if (!factored && !unmeasured && summary.termination == Termination::kConverged &&
        residuals[k] > std::max(kTelling, kExplained * told)) {
      summary.termination = Termination::kIterationLimit;
      const auto& picked = evidence_[stage].solver;
      summary.message =
          fmt::format("{} in {} leaves a residual of {:.1e} |b|, which is {:.1e} in float64: rounding; {}",
                      picked.empty() ? "the solve" : picked.substr(0, picked.find(':')), dtype_name(type), told,
                      residuals[k], rounding_remedy(type));
    }
  }
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

std::vector<std::string> moved_parameters(const Stage& stage) {
  return moved_by(leaves(stage.theta), stage.parent, stage.objective).names();
}

Directions push_forward(const Stage& stage, const at::Tensor& v) {
  const auto theta = leaves(widened(stage.theta));
  const auto moved = moved_by(theta, widened(stage.parent), stage.objective);
  const auto blocks = directions_of(v, stage.objective.trained());
  Directions out;
  TensorList values, pushed;  // of the parameters that are functions of theta
  for (std::size_t i = 0; i < moved.size(); ++i) {
    const auto& value = moved.values()[i];
    const auto itself = std::find_if(theta.begin(), theta.end(), [&](const auto& t) { return t.is_same(value); });
    if (itself != theta.end()) {
      out.add(moved.names()[i], blocks.values()[static_cast<std::size_t>(itself - theta.begin())]);
      continue;
    }
    pushed.push_back(at::empty(direction_shape(v.size(0), value), v.options()));
    values.push_back(value);
    out.add(moved.names()[i], pushed.back());
  }
  if (values.empty()) {
    return out;
  }
  const auto cotangent = leaves(zeros_like(detach(values)));
  const auto pulled =
      gradient(values, theta, cotangent, true);  // linear in the cotangent: its derivative is the push-forward
  for (std::int64_t k = 0; k < v.size(0); ++k) {
    const auto found = gradient(pulled, cotangent, unflatten(v[k], theta), false, true);
    for (std::size_t i = 0; i < pushed.size(); ++i) {
      pushed[i][k].copy_(found[i]);
    }
  }
  return out;
}

}  // namespace whence
