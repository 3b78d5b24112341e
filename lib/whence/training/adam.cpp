// D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
#include <ATen/ATen.h>

#include <cmath>

#include "whence/training/detail/minibatch.h"

namespace whence {
namespace {

struct AdamOptions {
  detail::MinibatchOptions loop{.learning_rate = 1e-3};
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    detail::MinibatchOptions::fields(self.loop, field);
    field("beta1", self.beta1, kBelowOne, "decay of the mean gradient; the paper's");
    field("beta2", self.beta2, kBelowOne, "decay of the mean squared gradient; the paper's");
    field("epsilon", self.epsilon, kPositive, "added to the root of the mean squared gradient; the paper's");
  }

 private:
  static constexpr Bound kBelowOne{0, 1 - 1e-12, "in [0, 1)"};
};

class Adam : public Optimizer {
 public:
  explicit Adam(AdamOptions options) : options_(std::move(options)) {}

  TrainingSummary minimise(const Objective& objective, const TensorList& parent, TrainingState& state,
                           const Random& random, const Progress& progress) const override {
    return detail::minimise_by_minibatches(
        "adam", options_.loop, objective, parent, state, random, progress,
        [this](TrainingState& at, const TensorList& g, double rate) { step(at, g, rate); });
  }

  std::int64_t planned_iterations(std::int64_t examples) const override {
    return detail::planned_iterations(options_.loop, examples);
  }

  /// 1 / (sqrt(v) + epsilon) with the bias of v corrected; ones before the first step.
  TensorList preconditioner(const TrainingState& state) const override {
    TensorList out;
    for (std::size_t i = 0; i < state.theta.size(); ++i) {
      out.push_back(state.memory.empty() ? at::ones_like(state.theta[i])
                                         : scale(state.memory[1][i], state.iteration).reciprocal_());
    }
    return out;
  }

 private:
  /// What `steps` steps with the mean squared gradient `square` divide the next direction by.
  at::Tensor scale(const at::Tensor& square, std::int64_t steps) const {
    const double correction = 1 - std::pow(options_.beta2, static_cast<double>(steps));
    return (square / correction).sqrt_().add_(options_.epsilon);
  }

  /// state.memory: the means of the gradient and of its square.
  void step(TrainingState& state, const TensorList& g, double rate) const {
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
      state.theta[i] = state.theta[i].detach() - (rate / correction) * mean[i] / scale(square[i], state.iteration + 1);
    }
    state.time += rate;
  }

  AdamOptions options_;
};

}  // namespace

WHENCE_METHOD(Optimizer, adam, Adam, AdamOptions)

}  // namespace whence
