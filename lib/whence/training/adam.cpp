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

 private:
  /// state.memory: the means of the gradient and of its square.
  void step(TrainingState& state, const TensorList& g, double rate) const {
    if (state.memory.empty()) {
      state.memory = {zeros_like(state.theta), zeros_like(state.theta)};
    }
    const auto t = static_cast<double>(state.iteration + 1);
    const double correction1 = 1 - std::pow(options_.beta1, t), correction2 = 1 - std::pow(options_.beta2, t);
    auto& mean = state.memory[0];
    auto& square = state.memory[1];
    for (std::size_t i = 0; i < g.size(); ++i) {
      mean[i] = mean[i] * options_.beta1 + g[i] * (1 - options_.beta1);
      square[i] = square[i] * options_.beta2 + g[i].square() * (1 - options_.beta2);
      const auto scale = (square[i] / correction2).sqrt_().add_(options_.epsilon);
      state.theta[i] = state.theta[i].detach() - (rate / correction1) * mean[i] / scale;
    }
  }

  AdamOptions options_;
};

}  // namespace

WHENCE_METHOD(Optimizer, adam, Adam, AdamOptions)

}  // namespace whence
