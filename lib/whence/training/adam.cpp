#include "whence/training/detail/adam.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace whence {
namespace detail {

MinibatchSteps AdamSteps::minibatches(const Objective& objective, const TensorList& parent,
                                      const Random& random) const {
  return {name_,
          options_.loop,
          objective,
          parent,
          random,
          [self = *this](TrainingState& at, const TensorList& g, double rate) { self.step(at, g, rate); },
          [self = *this](const TrainingState& before, const TensorList& g, double rate, StepAdjoint& adjoint) {
            return self.pull_back(before, g, rate, adjoint);
          }};
}

TrainingSummary AdamSteps::minimise(const Objective& objective, const TensorList& parent, TrainingState& state,
                                    const Random& random, const Progress& progress) const {
  return minibatches(objective, parent, random).minimise(state, progress);
}

std::unique_ptr<TrainingSteps> AdamSteps::steps(const Objective& objective, const TensorList& parent,
                                                const Random& random) const {
  return std::make_unique<MinibatchSteps>(minibatches(objective, parent, random));
}

TensorList AdamSteps::preconditioner(const TrainingState& state) const {
  TensorList out;
  for (std::size_t i = 0; i < state.theta.size(); ++i) {
    out.push_back(state.memory.empty() ? at::ones_like(state.theta[i])
                                       : scale(state.memory[1][i], state.iteration).reciprocal_());
  }
  return out;
}

double AdamSteps::inverse_time(const TrainingState& state) const {
  if (!(state.time > 0) || state.memory.empty()) {
    return 0;
  }
  double sum = 0, count = 0;
  for (const auto& square : state.memory[1]) {
    const auto moved = square.gt(0);
    sum += (scale(square, state.iteration).square() * moved).sum(at::kDouble).item<double>();
    count += static_cast<double>(moved.sum().item<std::int64_t>());
  }
  return count > 0 ? std::sqrt(sum / count) / state.time : 0;
}

double AdamSteps::estimated_inverse_time(const TrainingEnd& end) const {
  const auto batch = static_cast<double>(std::min(options_.loop.batch_size, end.terms));
  const double square = std::pow(end.gradient_norm, 2) + std::pow(end.term_norm, 2) / batch;
  return std::sqrt(square / static_cast<double>(end.entries)) / planned_time(options_.loop, end.terms);
}

/// What `steps` steps with the mean squared gradient `square` divide the next direction by.
at::Tensor AdamSteps::scale(const at::Tensor& square, std::int64_t steps) const {
  const double correction = 1 - std::pow(options_.beta2, static_cast<double>(steps));
  return (square / correction).sqrt_().add_(options_.epsilon);
}

/// state.memory: the means of the gradient and of its square.
void AdamSteps::step(TrainingState& state, const TensorList& g, double rate) const {
  if (state.memory.empty()) {
    state.memory = {zeros_like(state.theta), zeros_like(state.theta)};
  }
  const auto t = static_cast<double>(state.iteration + 1);
  const double correction = 1 - std::pow(options_.beta1, t);
  auto& mean = state.memory[0];
  auto& square = state.memory[1];
  for (std::size_t i = 0; i < g.size(); ++i) {
    mean[i] = mean[i] * options_.beta1 + g[i] * (1 - options_.beta1);
    square[i] = square[i] * options_.beta2 + g[i].square() * (1 - options_.beta2);
    const auto before = state.theta[i].detach();
    const double kept = before.dim() > 1 ? 1 - rate * decay_ : 1;
    state.theta[i] = before * kept - (rate / correction) * mean[i] / scale(square[i], state.iteration + 1);
  }
  state.time += rate;
}

/// Tensor by tensor, as the step. Where the mean square is 0, so is every gradient so far, and nothing goes through it:
/// the embeddings of words that no text has, under a pull to the parent's, stay the parent's wherever those go.
at::Tensor AdamSteps::pull_back(const TrainingState& before, const TensorList& g, double rate,
                                StepAdjoint& adjoint) const {
  const auto t = before.iteration + 1;
  const double mean_correction = 1 - std::pow(options_.beta1, static_cast<double>(t));
  const double square_correction = 1 - std::pow(options_.beta2, static_cast<double>(t));
  const auto [of_theta, of_memory] = std::exchange(adjoint, {at::empty_like(adjoint.theta), {}});
  adjoint.memory = {at::empty_like(of_theta), at::empty_like(of_theta)};
  auto out = at::empty_like(of_theta);
  std::int64_t place = 0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    const auto count = g[i].numel();
    const auto part = [&](const at::Tensor& block) { return block.narrow(1, place, count); };
    const auto flat = [&](const at::Tensor& x) { return x.detach().reshape(-1).to(of_theta.options()); };
    const auto at = flat(g[i]);
    auto mean = at * (1 - options_.beta1), square = at.square() * (1 - options_.beta2);
    if (!before.memory.empty()) {
      mean.add_(flat(before.memory[0][i]), options_.beta1);
      square.add_(flat(before.memory[1][i]), options_.beta2);
    }
    const auto root = (square / square_correction).sqrt(), divisor = root + options_.epsilon;
    const auto felt = [&](const at::Tensor& x) { return at::where(square > 0, x, at::zeros_like(x)); };
    const auto moved = felt(part(of_theta) * (rate / mean_correction) / divisor);
    const auto bent = felt(mean / (divisor * root * (2 * square_correction)));
    const auto of_mean = part(of_memory[0]) - moved, of_square = part(of_memory[1]) + moved * bent;
    part(out).copy_(of_mean * (1 - options_.beta1) + of_square * (2 * (1 - options_.beta2) * at));
    part(adjoint.memory[0]).copy_(of_mean * options_.beta1);
    part(adjoint.memory[1]).copy_(of_square * options_.beta2);
    part(adjoint.theta).copy_(part(of_theta) * (g[i].dim() > 1 ? 1 - rate * decay_ : 1.0));
    place += count;
  }
  return out;
}

}  // namespace detail

namespace {

class Adam : public detail::AdamSteps {
 public:
  explicit Adam(detail::AdamOptions options) : AdamSteps("adam", std::move(options), 0) {}
};

}  // namespace

WHENCE_METHOD(Optimizer, adam, Adam, detail::AdamOptions)

}  // namespace whence
