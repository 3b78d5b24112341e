#include "whence/training/detail/minibatch.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "whence/models/ops.h"

namespace whence::detail {
namespace {

/// An objective's terms, mostly examples, in random order every epoch, cut into minibatches, the last of an epoch
/// perhaps smaller.
class Minibatches {
 public:
  Minibatches(std::int64_t terms, std::int64_t batch_size, const Random& random)
      : terms_(terms), batch_size_(std::min(batch_size, terms)), random_(random) {}

  std::int64_t per_epoch() const { return (terms_ + batch_size_ - 1) / batch_size_; }

  /// Those of a step, [B].
  at::Tensor terms(std::int64_t iteration) {
    const auto epoch = iteration / per_epoch(), begin = iteration % per_epoch() * batch_size_;
    if (epoch != epoch_) {
      order_ = random_.stream(fmt::format("epoch {}", epoch)).permutation(terms_);
      epoch_ = epoch;
    }
    return order_.narrow(0, begin, std::min(batch_size_, terms_ - begin));
  }

 private:
  std::int64_t terms_;
  std::int64_t batch_size_;
  Random random_;
  std::int64_t epoch_ = -1;
  at::Tensor order_;
};

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

std::int64_t iterations_an_epoch(const MinibatchOptions& options, std::int64_t terms) {
  const auto batch_size = std::min(options.batch_size, terms);
  return (terms + batch_size - 1) / batch_size;
}

std::string progress_detail(double loss, double gradient_norm) {
  return fmt::format("loss {:.4g}, |gradient| {:.1e}", loss, gradient_norm);
}

TrainingSummary minimise_by_minibatches(std::string_view name, const MinibatchOptions& options,
                                        const Objective& objective, const TensorList& parent, TrainingState& state,
                                        const Random& random, const Progress& progress, const MinibatchStep& step) {
  const c10::AutoGradMode with_grad(true);
  const auto start = std::chrono::steady_clock::now();
  Minibatches minibatches(objective.terms(), options.batch_size, random);
  const auto total = all_iterations(options, minibatches.per_epoch());
  const auto fixed = detach(parent);
  const auto at_once = options.micro_batch > 0 ? options.micro_batch : objective.terms_at_once();
  const auto computing = options.compute == "bfloat16" ? objective.with_compute_type(at::kBFloat16) : objective;
  const DerivativeOrder first(1);

  TrainingSummary summary;
  TensorList gradient_at_end;
  const auto look = [&] {
    try {
      summary.objective = objective.value(state.theta, fixed, &gradient_at_end);
    } catch (const NumericalError& error) {
      throw NumericalError(fmt::format("{}: iteration {}: {}", name, state.iteration, error.what()));
    }
    summary.gradient_norm = norm(gradient_at_end);
    summary.converged = options.tolerance > 0 && summary.gradient_norm <= options.tolerance;
  };

  bool looked = false;
  while (true) {
    looked = state.iteration % minibatches.per_epoch() == 0 && options.tolerance > 0;
    if (looked) {
      look();
    }
    if (summary.converged || state.iteration >= total) {
      break;
    }
    const auto terms = minibatches.terms(state.iteration);
    const auto theta = leaves(state.theta);
    const double scale = static_cast<double>(objective.terms()) / static_cast<double>(terms.size(0));
    const auto penalty = objective.penalty(theta, fixed);
    double value = penalty.item<double>();
    auto gradients = clone(gradient(penalty, theta));
    for (std::int64_t begin = 0; begin < terms.size(0); begin += at_once) {
      const auto batch = objective.terms_batch(terms.narrow(0, begin, std::min(at_once, terms.size(0) - begin)));
      const auto loss = computing.batch_loss(theta, fixed, batch) * scale;
      value += loss.item<double>();
      axpy(1, gradient(loss, theta), gradients);
    }
    const double length = norm(gradients);
    if (!std::isfinite(value) || !std::isfinite(length)) {
      throw NumericalError(fmt::format(
          "{}: iteration {}: the minibatch's objective is {}, |gradient| {}; a smaller learning-rate may help", name,
          state.iteration, value, length));
    }
    if (options.clip > 0 && length > options.clip) {
      for (auto& g : gradients) {
        g.mul_(options.clip / length);
      }
    }
    step(state, gradients, scheduled_rate(options, state.iteration, total));
    ++state.iteration;
    report(progress, {"train", state.iteration, total, progress_detail(value, length)});
  }
  if (!looked) {
    report(progress, {"check", 0, 0, "the gradient of all examples"});
    look();
  }
  summary.iterations = state.iteration;
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  summary.message = summary.converged
                        ? fmt::format("|gradient| {:.2e} met the tolerance {:.2e} after {} iterations",
                                      summary.gradient_norm, options.tolerance, state.iteration)
                        : fmt::format("all {} iterations done, |gradient| {:.2e}", total, summary.gradient_norm);
  return summary;
}

}  // namespace whence::detail
