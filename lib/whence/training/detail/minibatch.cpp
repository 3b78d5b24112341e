#include "whence/training/detail/minibatch.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "whence/core/rounding.h"
#include "whence/core/seconds.h"
#include "whence/core/side_by_side.h"
#include "whence/models/ops.h"

namespace whence::detail {
namespace {

std::int64_t all_iterations(const MinibatchOptions& options, std::int64_t per_epoch) {
  return options.max_iterations > 0 ? options.max_iterations : options.epochs * per_epoch;
}

double norm(const TensorList& x) { return std::sqrt(exact_dot(x, x)); }

}  // namespace

double scheduled_rate(const MinibatchOptions& options, std::int64_t iteration, std::int64_t total) {
  if (iteration < options.warm_up) {
    return options.learning_rate * static_cast<double>(iteration + 1) / static_cast<double>(options.warm_up);
  }
  const double progress =
      static_cast<double>(iteration - options.warm_up) / static_cast<double>(total - options.warm_up);
  if (options.schedule == "linear") {
    return options.learning_rate * (1 - progress);
  }
  if (options.schedule == "cosine") {
    return options.learning_rate * (1 + std::cos(std::numbers::pi * progress)) / 2;
  }
  return options.learning_rate;
}

std::int64_t planned_iterations(const MinibatchOptions& options, std::int64_t examples) {
  if (options.tolerance > 0) {
    throw InvalidArgument(
        fmt::format("option tolerance = {} ends it at an iteration that is not known before: set tolerance = 0",
                    options.tolerance));
  }
  return all_iterations(options, iterations_an_epoch(options, examples));
}

double planned_time(const MinibatchOptions& options, std::int64_t examples) {
  const auto total = static_cast<double>(all_iterations(options, iterations_an_epoch(options, examples)));
  const auto rise = static_cast<double>(options.warm_up), risen = std::min(rise, total), rest = total - risen;
  const double steps = (rise > 0 ? risen * (risen + 1) / (2 * rise) : 0) +
                       (options.schedule == "constant" || rest == 0 ? rest : (rest + 1) / 2);  // both others' sum
  return options.learning_rate * steps;
}

std::int64_t iterations_an_epoch(const MinibatchOptions& options, std::int64_t terms) {
  const auto batch_size = std::min(options.batch_size, terms);
  return (terms + batch_size - 1) / batch_size;
}

bool stacks(const MinibatchOptions& options) { return options.clip == 0 && options.tolerance == 0; }

std::string progress_detail(double loss, double gradient_norm) {
  return fmt::format("loss {:.4g}, |gradient| {:.1e}", loss, gradient_norm);
}

MinibatchSteps::MinibatchSteps(std::string_view name, const MinibatchOptions& options, const Objective& objective,
                               const TensorList& parent, const Random& random, MinibatchStep step,
                               MinibatchPullBack pull_back)
    : name_(name),
      options_(options),
      objective_(objective),
      computing_(options.compute == "bfloat16" ? objective.with_compute_type(at::kBFloat16) : objective),
      parent_(detach(parent)),
      random_(random),
      step_(std::move(step)),
      pull_back_(std::move(pull_back)),
      batch_size_(std::min(options.batch_size, objective.terms())),
      per_epoch_(iterations_an_epoch(options, objective.terms())),
      count_(all_iterations(options, per_epoch_)) {}

/// Every epoch has the terms in a random order of its own, cut into minibatches, the last perhaps smaller.
at::Tensor MinibatchSteps::terms(std::int64_t iteration) const {
  const auto epoch = iteration / per_epoch_, begin = iteration % per_epoch_ * batch_size_;
  if (epoch != epoch_) {
    order_ = random_.stream(fmt::format("epoch {}", epoch)).permutation(objective_.terms());
    epoch_ = epoch;
  }
  return order_.narrow(0, begin, std::min(batch_size_, objective_.terms() - begin));
}

StepTaken MinibatchSteps::slope(const at::Tensor& which, const TensorList& theta, const Part& part) const {
  const auto at_once = options_.micro_batch > 0 ? options_.micro_batch : objective_.terms_at_once();
  const auto penalty = part(nullptr);
  StepTaken taken{clone(gradient(penalty, theta)), penalty.item<double>(), 0};
  for (std::int64_t begin = 0; begin < which.size(0); begin += at_once) {
    const auto batch = objective_.terms_batch(which.narrow(0, begin, std::min(at_once, which.size(0) - begin)));
    const auto loss = part(&batch);
    taken.value += loss.item<double>();
    axpy(1, gradient(loss, theta), taken.gradient);
  }
  taken.length = norm(taken.gradient);
  return taken;
}

void MinibatchSteps::check_finite(const StepTaken& taken, std::int64_t iteration) const {
  if (!std::isfinite(taken.value) || !std::isfinite(taken.length)) {
    throw NumericalError(fmt::format(
        "{}: iteration {}: the minibatch's objective is {}, |gradient| {}; a smaller learning-rate may help", name_,
        iteration, taken.value, taken.length));
  }
}

StepTaken MinibatchSteps::advance(TrainingState& state) const {
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder first(1);
  const auto which = terms(state.iteration);
  const auto theta = leaves(state.theta);
  const double scale = static_cast<double>(objective_.terms()) / static_cast<double>(which.size(0));
  auto taken = slope(which, theta, [&](const Batch* batch) {
    return batch == nullptr ? objective_.penalty(theta, parent_)
                            : computing_.batch_loss(theta, parent_, *batch) * scale;
  });
  check_finite(taken, state.iteration);
  if (options_.clip > 0 && taken.length > options_.clip) {
    for (auto& g : taken.gradient) {
      g.mul_(options_.clip / taken.length);
    }
  }
  step_(state, taken.gradient, scheduled_rate(options_, state.iteration, count_));
  ++state.iteration;
  return taken;
}

TensorList MinibatchSteps::minimise_all(const TensorList& theta, const at::Tensor& weights,
                                        const Progress& progress) const {
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder first(1);
  const auto models = weights.size(0);
  const auto rows = weights.to(algebra_options(theta.front().options()));
  TrainingState state;
  for (const auto& value : theta) {
    state.theta.push_back(value.detach().unsqueeze(0).repeat_interleave(models, 0));
  }
  while (state.iteration < count_) {
    const auto which = terms(state.iteration);
    const auto point = leaves(state.theta);
    const auto share = 1 / static_cast<double>(which.size(0));
    const auto taken = slope(which, point, [&](const Batch* batch) {
      const SideBySide each(models);
      TensorList one;
      for (const auto& stack : point) {
        one.push_back(each.one(stack));
      }
      if (batch == nullptr) {
        return each.all(objective_.penalty(one, parent_)).sum();
      }
      const auto losses = computing_.example_losses(one, parent_, *batch);
      const auto of_batch = rows.index_select(1, batch->rows.to(rows.device())) * share;
      return each.all((losses * each.one(of_batch)).sum()).sum();
    });
    check_finite(taken, state.iteration);
    step_(state, taken.gradient, scheduled_rate(options_, state.iteration, count_));
    ++state.iteration;
    report(progress, {"train", state.iteration, count_, progress_detail(taken.value, taken.length)});
  }
  return detach(state.theta);
}

at::Tensor MinibatchSteps::pull_back(const TrainingState& before, const StepTaken& taken, StepAdjoint& adjoint) const {
  auto out = pull_back_(before, taken.gradient, scheduled_rate(options_, before.iteration, count_), adjoint);
  if (options_.clip > 0 && taken.length > options_.clip) {  // clip g / |g|: the part along g has no effect
    const auto along = flatten(taken.gradient).to(out.options()) / options_.clip;
    out = (out - at::mv(out, along).unsqueeze(1) * along) * (options_.clip / taken.length);
  }
  return out;
}

TrainingSummary MinibatchSteps::minimise(TrainingState& state, const Progress& progress) const {
  const c10::AutoGradMode with_grad(true);
  const auto start = Clock::now();

  TrainingSummary summary;
  TensorList gradient_at_end;
  const auto evaluate = [&] {
    try {
      summary.objective = objective_.value(state.theta, parent_, &gradient_at_end);
    } catch (const NumericalError& error) {
      throw NumericalError(fmt::format("{}: iteration {}: {}", name_, state.iteration, error.what()));
    }
    summary.gradient_norm = norm(gradient_at_end);
    summary.converged = options_.tolerance > 0 && summary.gradient_norm <= options_.tolerance;
  };

  bool evaluated = false;
  while (true) {
    evaluated = state.iteration % per_epoch_ == 0 && options_.tolerance > 0;
    if (evaluated) {
      evaluate();
    }
    if (summary.converged || state.iteration >= count_) {
      break;
    }
    const auto taken = advance(state);
    report(progress, {"train", state.iteration, count_, progress_detail(taken.value, taken.length)});
  }
  if (!evaluated) {
    report(progress, {"check", 0, 0, "the gradient of all examples"});
    evaluate();
  }
  summary.iterations = state.iteration;
  summary.seconds = seconds_since(start);
  summary.message = summary.converged
                        ? fmt::format("|gradient| {:.2e} met the tolerance {:.2e} after {} iterations",
                                      summary.gradient_norm, options_.tolerance, state.iteration)
                        : fmt::format("all {} iterations done, |gradient| {:.2e}", count_, summary.gradient_norm);
  return summary;
}

}  // namespace whence::detail
