// Limited-memory BFGS over all the data. D. Liu and J. Nocedal, "On the limited memory BFGS method for large scale
// optimization", 1989. The line search is algorithms 3.5 and 3.6 of J. Nocedal and S. Wright, "Numerical Optimization",
// 2006: strong Wolfe conditions, cubic interpolation. Where values differ by rounding only, it goes by slopes, as W.
// Hager and H. Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search", 2005;
// that is what brings the gradient down to rounding.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <optional>

#include "whence/core/rounding.h"
#include "whence/core/seconds.h"
#include "whence/training/detail/minibatch.h"
#include "whence/training/priming.h"

namespace whence {
namespace {

constexpr double kDecrease = 1e-4, kCurvature = 0.9;  // Nocedal and Wright's c1 and c2 for quasi-Newton directions
constexpr int kTrials = 30;                           // evaluations of one line search
constexpr double kOfAnExample = 1e-4;                 // a gradient far below what stages call a minimum, 1e-3
constexpr double kPatience = 100;                     // iterations without a lower objective or gradient

struct LbfgsOptions {
  std::int64_t max_iterations = 1000;
  double tolerance = 1e-6;
  std::int64_t history = 20;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-iterations", self.max_iterations, kAtLeastOne, "steps; each costs about one pass over the data");
    field("tolerance", self.tolerance, kAtLeastZero,
          "stop at |grad Phi| of at most this, and of at most 1e-4 of an example's gradient at the start: whatever the "
          "scale of the losses");
    field("history", self.history, kAtLeastOne, "curvature pairs kept; memory is twice as many copies of theta");
  }
};

/// The objective along a line: at distance `step` from the start.
struct Trial {
  double step = 0;
  double value = 0;
  double slope = 0;  ///< d value / d step
  TensorList theta, gradient;
  double gradient_norm = 0;
};

struct CurvaturePair {
  TensorList s, y;  // differences of theta and of the gradient over one iteration
  double sy = 0;
};

/// Differences of objectives up to this size are rounding.
double rounding(double value, at::ScalarType dtype) { return 16 * epsilon(dtype) * std::abs(value); }

/// Minimiser of the cubic through two trials' values and slopes; of the quadratic through their slopes where the values
/// differ by rounding only. Kept a tenth of the interval away from its ends.
double interpolate(const Trial& a, const Trial& b, double noise) {
  const double width = b.step - a.step;
  double fraction = 0.5;
  if (std::isfinite(b.value)) {
    if (std::abs(a.value - b.value) > noise) {
      const double d1 = a.slope + b.slope - 3 * (b.value - a.value) / width;
      const double d2 = std::copysign(std::sqrt(std::max(0.0, d1 * d1 - a.slope * b.slope)), width);
      fraction = 1 - (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2);
    } else {
      fraction = a.slope / (a.slope - b.slope);
    }
  }
  return a.step + width * (std::isfinite(fraction) ? std::clamp(fraction, 0.1, 0.9) : 0.5);
}

/// Looks for a step that meets the strong Wolfe conditions.
class LineSearch {
 public:
  LineSearch(const Trial& start, double noise, std::function<Trial(double)> evaluate)
      : start_(start), noise_(noise), evaluate_(std::move(evaluate)), best_(start) {}

  /// The step found or, where rounding or a value that is not finite prevents that, the best trial: the start (step 0)
  /// if none is better.
  Trial find(double first_step) {
    Trial low = start_;
    for (double step = first_step; trials_ < kTrials; step *= 4) {
      auto trial = evaluate(step);
      if (!low_enough(trial) || trial.value > low.value + noise_) {
        return zoom(low, trial);
      }
      if (flat_enough(trial)) {
        return trial;
      }
      if (trial.slope >= 0) {
        return zoom(trial, low);
      }
      low = std::move(trial);
    }
    return best_;
  }

  bool saw_finite() const { return finite_ > 0; }

 private:
  Trial zoom(Trial low, Trial high) {
    while (trials_ < kTrials) {
      auto trial = evaluate(interpolate(low, high, noise_));
      if (!low_enough(trial) || trial.value > low.value + noise_) {
        high = std::move(trial);
        continue;
      }
      if (flat_enough(trial)) {
        return trial;
      }
      if (trial.slope * (high.step - low.step) >= 0) {
        high = std::move(low);
      }
      low = std::move(trial);
    }
    return best_;
  }

  Trial evaluate(double step) {
    ++trials_;
    auto trial = evaluate_(step);
    finite_ += std::isfinite(trial.value) ? 1 : 0;
    const bool lower = trial.value < best_.value - noise_;
    if (lower || (trial.value <= best_.value + noise_ && trial.gradient_norm < best_.gradient_norm)) {
      best_ = trial;
    }
    return trial;
  }

  bool low_enough(const Trial& trial) const {
    return trial.value <= start_.value + kDecrease * trial.step * start_.slope ||
           (trial.value <= start_.value + noise_ && trial.slope <= (2 * kDecrease - 1) * start_.slope);
  }

  bool flat_enough(const Trial& trial) const { return std::abs(trial.slope) <= kCurvature * std::abs(start_.slope); }

  const Trial& start_;
  double noise_;
  std::function<Trial(double)> evaluate_;
  Trial best_;
  int trials_ = 0, finite_ = 0;
};

/// -H g with H the inverse Hessian that the pairs, oldest first, describe.
TensorList quasi_newton_direction(const std::vector<CurvaturePair>& pairs, const TensorList& g) {
  auto d = clone(g);
  std::vector<double> alphas(pairs.size());
  for (auto i = pairs.size(); i-- > 0;) {
    alphas[i] = exact_dot(pairs[i].s, d) / pairs[i].sy;
    axpy(-alphas[i], pairs[i].y, d);
  }
  const double scale = pairs.empty() ? 1 : pairs.back().sy / exact_dot(pairs.back().y, pairs.back().y);
  for (auto& t : d) {
    t.mul_(-scale);
  }
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    axpy(-alphas[i] - exact_dot(pairs[i].y, d) / pairs[i].sy, pairs[i].s, d);
  }
  return d;
}

/// One run of the optimizer. state.memory holds {[lowest |gradient|, iterations since anything fell, tolerance]}, s, y,
/// s, y, …, oldest pair first.
class Run {
 public:
  Run(const LbfgsOptions& options, const Objective& objective, const TensorList& parent, TrainingState& state)
      : options_(options), objective_(objective), parent_(detach(parent)), state_(state) {
    try {
      here_ = evaluate(detach(state.theta));
    } catch (const NumericalError& error) {
      throw NumericalError(fmt::format("lbfgs: iteration {}: {}", state_.iteration, error.what()));
    }
    lowest_ = here_.gradient_norm;
    tolerance_ = options.tolerance;
    if (!state_.memory.empty()) {
      lowest_ = state_.memory[0][0][0].item<double>();
      stale_ = state_.memory[0][0][1].item<double>();
      tolerance_ = state_.memory[0][0].numel() > 2 ? state_.memory[0][0][2].item<double>() : tolerance_;
    } else if (kOfAnExample * here_.gradient_norm < tolerance_) {  // an example's is no smaller than their mean
      tolerance_ = std::min(tolerance_, kOfAnExample * example_gradient());
    }
    for (std::size_t i = 1; i + 1 < state_.memory.size(); i += 2) {
      remember(state_.memory[i], state_.memory[i + 1]);
    }
  }

  bool converged() const { return here_.gradient_norm <= tolerance_; }
  double tolerance() const { return tolerance_; }
  bool stuck() const { return stale_ >= kPatience; }
  const Trial& here() const { return here_; }
  std::int64_t evaluations() const { return evaluations_; }

  /// One iteration; false where no step makes progress, which leaves the state as it was.
  bool advance() {
    auto next = search(quasi_newton_direction(pairs_, here_.gradient));
    if (next.step == 0 && !pairs_.empty()) {
      pairs_.clear();
      next = search(quasi_newton_direction(pairs_, here_.gradient));
    }
    if (next.step == 0) {
      return false;
    }
    const bool fell = next.value < here_.value - noise() || next.gradient_norm < lowest_;
    lowest_ = std::min(lowest_, next.gradient_norm);
    stale_ = fell ? 0 : stale_ + 1;
    remember(difference(next.theta, here_.theta), difference(next.gradient, here_.gradient));
    here_ = std::move(next);
    save();
    return true;
  }

 private:
  static TensorList difference(const TensorList& a, const TensorList& b) {
    auto out = clone(a);
    axpy(-1, b, out);
    return out;
  }

  /// Root mean square of the lengths of the loss gradients of some examples, spread over the data, where training
  /// begins. With independent signs s_i the mean of |sum s_i grad loss_i|^2 is sum |grad loss_i|^2 (Hutchinson 1990).
  double example_gradient() const {
    constexpr std::int64_t kExamples = 256;
    const auto n = objective_.terms();
    const auto count = std::min(n, kExamples);
    const auto which = at::linspace(0, static_cast<double>(n - 1), count, at::kDouble).round().to(at::kLong);
    const auto some = objective_.over(which);
    const auto signs = Random(0).stream("an example's gradient").uniform({count}, -1, 1).sign();
    const auto point = leaves(here_.theta);
    double square = 0;
    some.for_each_batch([&](const Batch& batch) {
      const auto losses = some.term_losses(point, parent_, batch);
      const auto g = gradient({losses}, point, {signs.index_select(0, some.terms_in(batch)).to(losses.options())});
      square += exact_dot(g, g);
    });
    return std::sqrt(square / static_cast<double>(count));
  }

  double noise() const { return rounding(here_.value, here_.theta.front().scalar_type()); }

  Trial evaluate(TensorList theta) {
    ++evaluations_;
    Trial out;
    out.theta = std::move(theta);
    out.value = objective_.value(out.theta, parent_, &out.gradient);
    out.gradient_norm = std::sqrt(exact_dot(out.gradient, out.gradient));
    if (!std::isfinite(out.gradient_norm)) {
      throw NumericalError(fmt::format("the objective's gradient is not finite where the objective is {}", out.value));
    }
    return out;
  }

  Trial search(const TensorList& direction) {
    here_.step = 0;
    here_.slope = exact_dot(here_.gradient, direction);
    if (!(here_.slope < 0)) {
      return here_;
    }
    LineSearch line(here_, noise(), [&](double step) { return along(direction, step); });
    auto found = line.find(pairs_.empty() ? std::min(1.0, 1 / here_.gradient_norm) : 1.0);
    if (!line.saw_finite()) {
      throw NumericalError(fmt::format("lbfgs: iteration {}: the objective is {} here and not finite at any step",
                                       state_.iteration, here_.value));
    }
    return found;
  }

  /// A step too long for the numbers is infinitely bad, not an error.
  Trial along(const TensorList& direction, double step) {
    auto theta = clone(here_.theta);
    axpy(step, direction, theta);
    Trial out;
    try {
      out = evaluate(std::move(theta));
      out.slope = exact_dot(out.gradient, direction);
    } catch (const NumericalError&) {
      out.value = out.gradient_norm = std::numeric_limits<double>::infinity();
    }
    out.step = step;
    return out;
  }

  /// Keeps the newest `history` pairs along which the objective curves upwards by more than rounding.
  void remember(TensorList s, TensorList y) {
    const double sy = exact_dot(s, y);
    if (sy > std::numeric_limits<double>::epsilon() * std::sqrt(exact_dot(s, s) * exact_dot(y, y))) {
      pairs_.push_back({std::move(s), std::move(y), sy});
    }
    if (static_cast<std::int64_t>(pairs_.size()) > options_.history) {
      pairs_.erase(pairs_.begin());
    }
  }

  void save() {
    std::vector<TensorList> memory = {{at::tensor({lowest_, stale_, tolerance_}, at::kDouble)}};
    for (const auto& pair : pairs_) {
      memory.push_back(pair.s);
      memory.push_back(pair.y);
    }
    state_.theta = here_.theta;
    state_.memory = std::move(memory);
    ++state_.iteration;
  }

  const LbfgsOptions& options_;
  const Objective& objective_;
  TensorList parent_;
  TrainingState& state_;
  Trial here_;
  std::vector<CurvaturePair> pairs_;
  double lowest_ = 0, stale_ = 0, tolerance_ = 0;
  std::int64_t evaluations_ = 0;
};

class Lbfgs : public Optimizer {
 public:
  explicit Lbfgs(const LbfgsOptions& options) : options_(options) {}

  TrainingSummary minimise(const Objective& objective, const TensorList& parent, TrainingState& state, const Random&,
                           const Progress& progress) const override {
    if (const auto* inner = objective.inner(); inner != nullptr && !inner->priming().is_exact()) {
      throw InvalidArgument(
          "lbfgs: gradients of a priming with order=first are not those of the objective that it searches along: use "
          "adam or sgd, or order=exact");
    }
    const c10::AutoGradMode with_grad(true);
    const auto start = Clock::now();
    Run run(options_, objective, parent, state);
    std::string reason;
    while (reason.empty()) {
      if (run.converged()) {
        reason = fmt::format("met the tolerance {:.2e}", run.tolerance());
      } else if (state.iteration >= options_.max_iterations) {
        reason = fmt::format("is above the tolerance {:.2e} at max-iterations", run.tolerance());
      } else if (run.stuck() || !run.advance()) {
        reason = fmt::format("cannot fall to the tolerance {:.2e}: steps change the objective by rounding only",
                             run.tolerance());
      } else {
        report(progress, {"train", state.iteration, options_.max_iterations,
                          detail::progress_detail(run.here().value, run.here().gradient_norm)});
      }
    }
    TrainingSummary summary;
    summary.converged = run.converged();
    summary.iterations = state.iteration;
    summary.objective = run.here().value;
    summary.gradient_norm = run.here().gradient_norm;
    summary.seconds = seconds_since(start);
    summary.message = fmt::format("|gradient| {:.2e} {}, after {} iterations and {} evaluations", summary.gradient_norm,
                                  reason, state.iteration, run.evaluations());
    return summary;
  }

 private:
  LbfgsOptions options_;
};

}  // namespace

WHENCE_METHOD(Optimizer, lbfgs, Lbfgs, LbfgsOptions)

}  // namespace whence
