#include "whence/training/validation.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/core/seconds.h"
#include "whence/models/ensemble.h"
#include "whence/models/ops.h"
#include "whence/training/steps.h"

namespace whence {
namespace {

std::string result_text(const ValidationResult& result) {
  return std::isnan(result.accuracy)
             ? fmt::format("validation loss {:.4g}", result.loss)
             : fmt::format("validation loss {:.4g}, accuracy {:.4g}", result.loss, result.accuracy);
}

bool better(const ValidationResult& a, const ValidationResult& b, bool by_accuracy) {
  return by_accuracy && a.accuracy != b.accuracy ? a.accuracy > b.accuracy : a.loss < b.loss;
}

/// The models whose mean is measured.
std::vector<ParameterSet> models_of(const Validation& validation, const ParameterSet& merged) {
  if (validation.draws == 0) {
    return {merged};
  }
  try {
    return drawn_models(merged, validation.draws);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("validation with {} draws: {}", validation.draws, error.what()));
  }
}

class StoppingEarly : public SteppingOptimizer {
 public:
  StoppingEarly(std::shared_ptr<const Optimizer> optimizer, Validation validation)
      : optimizer_(std::move(optimizer)), validation_(std::move(validation)) {}

  TrainingSummary minimise(const Objective& objective, const TensorList& parent, TrainingState& state,
                           const Random& random, const Progress& progress) const override {
    struct Ended {};
    const auto data = validation_.data();
    check_validation(validation_, data, objective, state.theta, parent);
    const c10::AutoGradMode with_grad(true);
    const auto start = Clock::now();
    const auto every = validation_.every > 0 ? validation_.every : optimizer_->iterations_an_epoch(objective.terms());
    ProgressEvent last{"train", state.iteration, 0, ""};
    const auto validate_where_due = [&](bool at_end) {
      const auto i = state.iteration;
      const bool done = !state.validation.empty() && state.validation.back().iteration == i;
      if (!done && (at_end || (i > 0 && i % every == 0))) {
        validate_here(data, objective, parent, state, [&](const ProgressEvent& event) {
          report(progress,
                 {last.phase, last.done, last.total, fmt::format("validation, {} of {}", event.done, event.total)});
        });
      }
    };
    const auto watch = [&](const ProgressEvent& event) {
      last = event;
      validate_where_due(false);
      auto told = event;
      if (!state.validation.empty()) {
        told.detail += (told.detail.empty() ? "" : ", ") + result_text(state.validation.back());
      }
      report(progress, told);
      if (out_of_patience(state)) {
        throw Ended();
      }
    };
    TrainingSummary out;
    try {
      watch(last);  // training that goes on may have been interrupted before it measured
      if (!has_ended(state)) {
        out = optimizer_->minimise(objective, parent, state, random, watch);
        validate_where_due(true);
      }
    } catch (const Ended&) {
    }
    const auto& best = state.validation[best_of(state.validation, validation_.by_accuracy)];
    if (out.gradient_norm < 0 || best.iteration != state.iteration) {
      TensorList g;
      out.objective = objective.value(state.best, detach(parent), &g);
      out.gradient_norm = std::sqrt(exact_dot(g, g));
      out.converged = false;
    }
    state.theta = state.best;
    out.iterations = state.iteration;
    out.validation = state.validation;
    out.kept = best.iteration;
    out.stopped_early = out_of_patience(state);
    out.seconds = seconds_since(start);
    out.message = fmt::format(
        "{} after {} iterations is the best of {} measurements and kept{}, |gradient| {:.2e}", result_text(best),
        best.iteration, state.validation.size(),
        out.stopped_early ? fmt::format(", stopped early as the last {} were no better", validation_.patience) : "",
        out.gradient_norm);
    return out;
  }

  std::int64_t planned_iterations(std::int64_t) const override {
    throw InvalidArgument("its validation ends it at an iteration that is not known before");
  }
  std::int64_t iterations_an_epoch(std::int64_t terms) const override { return optimizer_->iterations_an_epoch(terms); }
  TensorList preconditioner(const TrainingState& state) const override { return optimizer_->preconditioner(state); }
  double inverse_time(const TrainingState& state) const override { return optimizer_->inverse_time(state); }
  double estimated_inverse_time(const TrainingEnd& end) const override {
    return optimizer_->estimated_inverse_time(end);
  }
  std::unique_ptr<TrainingSteps> steps(const Objective& objective, const TensorList& parent,
                                       const Random& random) const override {
    const auto* stepping = dynamic_cast<const SteppingOptimizer*>(optimizer_.get());
    if (stepping == nullptr) {
      throw InvalidArgument("its optimizer goes no steps that could be gone back: use sgd, adam or adamw");
    }
    return stepping->steps(objective, parent, random);
  }

 private:
  /// Whether the state is that of a training that has been here to its end, and holds what was best in place of the
  /// last.
  bool has_ended(const TrainingState& state) const {
    return !state.validation.empty() &&
           state.validation[best_of(state.validation, validation_.by_accuracy)].iteration != state.iteration &&
           std::equal(state.theta.begin(), state.theta.end(), state.best.begin(), state.best.end(),
                      [](const auto& a, const auto& b) { return at::equal(a, b); });
  }

  bool out_of_patience(const TrainingState& state) const {
    if (validation_.patience == 0 || state.validation.empty()) {
      return false;
    }
    const auto since = state.validation.size() - 1 - best_of(state.validation, validation_.by_accuracy);
    return static_cast<std::int64_t>(since) >= validation_.patience;
  }

  void validate_here(const Dataset& data, const Objective& objective, const TensorList& parent, TrainingState& state,
                     const Progress& progress) const {
    auto results = state.validation;
    results.push_back(validate(validation_, data, objective, state.theta, parent, state.iteration, progress));
    results.back().time = state.time;
    if (best_of(results, validation_.by_accuracy) + 1 == results.size()) {
      state.best = detach(state.theta);
    }
    state.validation = std::move(results);
  }

  std::shared_ptr<const Optimizer> optimizer_;
  Validation validation_;
};

}  // namespace

void check_validation(const Validation& validation, const Dataset& data, const Objective& objective,
                      const TensorList& theta, const TensorList& parent) {
  if (validation.by_accuracy && data.target_kind() != TargetKind::kClasses) {
    throw InvalidArgument("validation by accuracy: its examples are of no classes, expected a validation by loss");
  }
  models_of(validation, objective.merge(theta, parent));
}

ValidationResult validate(const Validation& validation, const Dataset& given, const Objective& objective,
                          const TensorList& theta, const TensorList& parent, std::int64_t iteration,
                          const Progress& progress) {
  const at::NoGradGuard no_gradient;
  const DerivativeOrder first(1);
  check_validation(validation, given, objective, theta, parent);
  const auto& like = theta.front();
  const auto data = given.dtype() == like.scalar_type() && given.device() == like.device()
                        ? given
                        : given.to(like.scalar_type(), like.device());
  const bool classes = data.target_kind() == TargetKind::kClasses;
  const auto models = models_of(validation, objective.merge(theta, parent));
  const auto total = data.size() * static_cast<std::int64_t>(models.size());
  double loss = 0, right = 0;
  std::int64_t done = 0;
  for (const auto& model : models) {
    for (std::int64_t begin = 0; begin < data.size(); begin += objective.batch_size()) {
      report(progress, {"validate", done, total, ""});
      const auto batch = data.batch(begin, std::min(data.size(), begin + objective.batch_size()));
      const auto output = widened(objective.model().output(model, batch));
      loss += objective.loss().per_example(output, batch).sum().item<double>();
      right += classes ? output.argmax(1).eq(batch.targets).sum().item<double>() : 0;
      done += batch.size();
    }
  }
  loss /= static_cast<double>(total);
  if (!std::isfinite(loss)) {
    throw NumericalError(
        fmt::format("validation after iteration {}: the loss is {} over {} examples", iteration, loss, data.size()));
  }
  return {iteration, loss, classes ? right / static_cast<double>(total) : std::numeric_limits<double>::quiet_NaN()};
}

std::size_t best_of(const std::vector<ValidationResult>& results, bool by_accuracy) {
  if (results.empty()) {
    throw std::logic_error("best_of: no validation results");
  }
  std::size_t best = 0;
  for (std::size_t i = 1; i < results.size(); ++i) {
    best = better(results[i], results[best], by_accuracy) ? i : best;
  }
  return best;
}

std::shared_ptr<const Optimizer> stopping_early(std::shared_ptr<const Optimizer> optimizer, Validation validation) {
  return std::make_shared<const StoppingEarly>(std::move(optimizer), std::move(validation));
}

}  // namespace whence
