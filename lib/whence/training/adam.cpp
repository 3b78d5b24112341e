#include "whence/training/detail/adam.h"

#include <ATen/ATen.h>

#include <cmath>

namespace whence {
namespace detail {

TrainingSummary AdamSteps::minimise(const Objective& objective, const TensorList& parent, TrainingState& state,
                                    const Random& random, const Progress& progress) const {
  return minimise_by_minibatches(name_, options_.loop, objective, parent, state, random, progress,
                                 [this](TrainingState& at, const TensorList& g, double rate) { step(at, g, rate); });
}

TensorList AdamSteps::preconditioner(const TrainingState& state) const {
  TensorList out;
  for (std::size_t i = 0; i < state.theta.size(); ++i) {
    out.push_back(state.memory.empty() ? at::ones_like(state.theta[i])
                                       : scale(state.memory[1][i], state.iteration).reciprocal_());
  }
  return out;
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

}  // namespace detail

namespace {

class Adam : public detail::AdamSteps {
 public:
  explicit Adam(detail::AdamOptions options) : AdamSteps("adam", std::move(options), 0) {}
};

}  // namespace

WHENCE_METHOD(Optimizer, adam, Adam, detail::AdamOptions)

}  // namespace whence
