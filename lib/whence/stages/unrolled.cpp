#include "whence/stages/unrolled.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/models/per_sample.h"
#include "whence/stages/head_start.h"
#include "whence/stages/moved.h"
#include "whence/stages/pipeline.h"

namespace whence {
namespace {

/// A training that comes back to its end has gone the same steps: other data, another seed or another version lead
/// elsewhere by far more than the rounding that another number of threads or type of numbers leaves.
double replay_tolerance(at::ScalarType dtype) { return std::sqrt(epsilon(dtype)); }

double relative_difference(const TensorList& a, const TensorList& b) {
  auto difference = clone(a);
  axpy(-1, b, difference);
  const double size = exact_dot(b, b), off = exact_dot(difference, difference);
  return off == 0 ? 0 : std::sqrt(off / size);
}

}  // namespace

std::vector<TrainingRun> training_runs(const Pipeline& pipeline, const Chain& chain, std::size_t first) {
  std::vector<TrainingRun> out(chain.size());
  for (auto k = first; k < chain.size(); ++k) {
    const auto& description = pipeline.stages()[k];
    auto& run = out[k];
    const Chain before(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(k));
    const auto training = pipeline.training(k);
    if (!training) {
      run.unknown = fmt::format("{} does not say how it was trained: train it with whence, or use another --response",
                                description.checkpoint.string());
      continue;
    }
    if (parse_head_start(description.head_start)) {
      run.unknown = fmt::format(
          "its head began at a regression on its own data, through which no step goes: train it with head-start = "
          "\"random\", or use another --response");
      continue;
    }
    try {
      pipeline.check_start(k, before);
    } catch (const InvalidArgument& error) {
      const auto prefix = fmt::format("stage {}: ", description.name);
      const std::string text = error.what();
      run.unknown = text.starts_with(prefix) ? text.substr(prefix.size()) : text;
      continue;
    }
    run.start = [&pipeline, k, before] { return pipeline.start(k, before); };
    run.random = Random(pipeline.seed()).stream("training of stage " + description.name);
    run.iterations = training->summary.kept >= 0 ? training->summary.kept : training->summary.iterations;
  }
  return out;
}

Unrolled::Unrolled(Chain chain, std::vector<TrainingRun> runs)
    : chain_(std::move(chain)),
      runs_(std::move(runs)),
      hessian_(create<Curvature>("hessian")),
      replays_(chain_.size()),
      evidence_(chain_.size()) {}

std::unique_ptr<TrainingSteps> Unrolled::steps_of(std::size_t stage) const {
  const auto& at = chain_[stage];
  const auto* stepping = dynamic_cast<const SteppingOptimizer*>(at.optimizer.get());
  if (stepping == nullptr) {
    throw InvalidArgument("its optimizer goes no steps that could be gone back: use sgd, adam or adamw");
  }
  return stepping->steps(at.objective, at.parent, stage < runs_.size() ? runs_[stage].random : Random(0));
}

void Unrolled::check(std::size_t first) const {
  for (auto k = first; k < chain_.size(); ++k) {
    const auto& stage = chain_[k];
    if (stage.objective.inner() != nullptr) {
      throw InvalidArgument(fmt::format(
          "stage {}: it is primed, and response unrolled goes no inner steps: use --response stationary", stage.name));
    }
    if (k > first && stage.objective.tuning().starts_from_parent()) {
      throw InvalidArgument(fmt::format(
          "stage {}: its training starts at numbers made of stage {}'s, and response unrolled follows only a start at "
          "its parameters themselves or at none of them: use --response stationary, or ask at stage {}",
          stage.name, chain_[k - 1].name, stage.name));
    }
    try {
      steps_of(k);
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(
          fmt::format("stage {}: response unrolled: {}; or use --response stationary for a chain at "
                      "its minima",
                      stage.name, error.what()));
    }
    if (k >= runs_.size() || !runs_[k].start) {
      throw InvalidArgument(fmt::format("stage {}: response unrolled goes its training again, and {}", stage.name,
                                        k >= runs_.size() ? TrainingRun().unknown : runs_[k].unknown));
    }
  }
}

const Unrolled::Replay& Unrolled::replay(std::size_t stage, const Progress& progress) {
  auto& slot = replays_[stage];
  if (slot) {
    return *slot;
  }
  const auto& at = chain_[stage];
  const auto& run = runs_[stage];
  auto made = std::make_unique<Replay>();
  made->steps = steps_of(stage);
  made->stride =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(run.iterations)))));
  TrainingState state{detach(run.start()), 0, {}};
  try {
    while (state.iteration < run.iterations) {
      if (state.iteration % made->stride == 0) {
        made->kept.push_back(state);
      }
      made->steps->advance(state);
      report(progress, {"replay " + at.name, state.iteration, run.iterations, ""});
    }
  } catch (const NumericalError& error) {
    throw NumericalError(fmt::format("stage {}: {}", at.name, error.what()));
  }
  made->lists = state.memory.size();
  auto& evidence = evidence_[stage];
  evidence.replay_difference = relative_difference(widened(state.theta), widened(detach(at.theta)));
  const auto dtype = at.theta.front().scalar_type();
  if (!(evidence.replay_difference <= replay_tolerance(dtype))) {
    throw InvalidArgument(fmt::format(
        "stage {}: its training, gone again, comes to other parameters than the checkpoint's, |difference| / "
        "|parameters| = {:.1e}, expected at most {:.1e} from rounding: it was trained with other data, settings, "
        "--dtype "
        "or version; train it again (whence train PIPELINE --stage {} --force), or use another --response",
        at.name, evidence.replay_difference, replay_tolerance(dtype), at.name));
  }
  evidence.steps = run.iterations;
  slot = std::move(made);
  return *slot;
}

void Unrolled::prepare(std::size_t first, const Progress& progress) {
  check(first);
  for (auto k = chain_.size(); k-- > first;) {
    replay(k, progress);
  }
}

/// Through all steps of a stage: `of_theta` [K, P] becomes the adjoint of its start, to `of_parent` comes what falls on
/// the parent meanwhile. The scores where they are wanted.
at::Tensor Unrolled::unroll(std::size_t stage, at::Tensor& of_theta, at::Tensor* of_parent, bool scored,
                            const Progress& progress) {
  const auto& made = replay(stage, progress);
  const auto& objective = chain_[stage].objective;
  const auto& parent = chain_[stage].parent;
  const auto total = runs_[stage].iterations;
  const auto size_at_end = row_norms(of_theta).clamp_min(1e-300);
  auto& evidence = evidence_[stage];
  StepAdjoint adjoint{of_theta, TensorList(made.lists, at::zeros_like(of_theta))};
  auto at = chain_[stage];
  at::Tensor scores;
  if (scored) {
    scores = at::zeros({of_theta.size(0), objective.data().size()}, of_theta.options());
  }
  for (auto segment = made.kept.size(); segment-- > 0;) {
    std::vector<std::pair<TrainingState, StepTaken>> held;
    auto state = made.kept[segment];
    const auto end = std::min(total, state.iteration + made.stride);
    while (state.iteration < end) {
      auto before = state;
      held.emplace_back(std::move(before), made.steps->advance(state));
      report(progress, {"unroll " + at.name, total - end, total, "replay"});
    }
    for (; !held.empty(); held.pop_back()) {
      const auto& [before, taken] = held.back();
      const auto gamma = made.steps->pull_back(before, taken, adjoint);
      const auto terms = made.steps->terms(before.iteration);
      at.theta = before.theta;
      if (scored) {
        const double scale = static_cast<double>(objective.data().size()) / static_cast<double>(terms.size(0));
        const auto model = objective.merge(at.theta, parent);
        const auto directions = push_forward(at, gamma);
        for (std::int64_t begin = 0; begin < terms.size(0); begin += objective.batch_size()) {
          const auto which = terms.narrow(0, begin, std::min(objective.batch_size(), terms.size(0) - begin));
          const auto products =
              per_sample_products(objective.model(), objective.loss(), model, objective.terms_batch(which), directions);
          scores.index_add_(1, which.to(scores.device()), products.to(scores.options()), scale);
        }
      }
      const CurvaturePoint point{objective.over(terms), at.theta, parent};
      adjoint.theta = adjoint.theta + hessian_->operator_at(point)->apply(gamma);
      if (of_parent != nullptr) {
        *of_parent = *of_parent + hessian_->mixed_product(point, gamma);
      }
      const double grown = (row_norms(adjoint.theta) / size_at_end).max().item<double>();
      if (!std::isfinite(grown)) {
        throw NumericalError(fmt::format(
            "stage {}: response unrolled: at step {} of {} the adjoint is not finite, its training is unstable there: "
            "use --dtype float64, a smaller learning-rate, or another --response",
            at.name, before.iteration, total));
      }
      evidence.growth = std::max(evidence.growth, grown);
      report(progress, {"unroll " + at.name, total - before.iteration, total, ""});
    }
  }
  of_theta = adjoint.theta;
  return scores;
}

std::vector<at::Tensor> Unrolled::sweep(const Directions& gradients, const std::vector<std::size_t>& stages,
                                        const Progress& progress) {
  const auto first = stages.front();
  check(first);
  std::vector<at::Tensor> out(chain_.size());
  auto cotangents = gradients;
  for (auto k = chain_.size(); k-- > first;) {
    const auto& stage = chain_[k];
    auto [of_theta, of_parent] = pull_back_merge(stage, cotangents, k > first, k + 1 == chain_.size());
    const bool scored = std::find(stages.begin(), stages.end(), k) != stages.end();
    out[k] = unroll(k, of_theta, k > first ? &of_parent : nullptr, scored, progress);
    if (k > first) {
      of_parent = of_parent.clone();
      for (const auto& [here, there, count] : entries_from_parent(stage)) {
        of_parent.narrow(1, there, count).add_(of_theta.narrow(1, here, count));
      }
      cotangents = directions_of(of_parent, stage.objective.parent_layout());  // and 0 on the head
    }
  }
  return out;
}

}  // namespace whence
