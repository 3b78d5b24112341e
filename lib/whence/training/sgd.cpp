// Stochastic gradient descent, with heavy-ball momentum (B. Polyak 1964) or Nesterov's, in the form of I. Sutskever et
// al., "On the importance of initialization and momentum in deep learning", ICML 2013, with the learning rate outside
// the velocity.
#include <ATen/ATen.h>

#include "whence/training/detail/minibatch.h"

namespace whence {
namespace {

struct SgdOptions {
  detail::MinibatchOptions loop{.learning_rate = 0.1};
  double momentum = 0.9;
  bool nesterov = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    detail::MinibatchOptions::fields(self.loop, field);
    field("momentum", self.momentum, kBelowOne, "decay of the velocity; 0: none");
    field("nesterov", self.nesterov, kAny, "look ahead along the velocity");
  }

 private:
  static constexpr Bound kBelowOne{0, 1 - 1e-12, "in [0, 1)"};
};

class Sgd : public SteppingOptimizer, public StackedTraining {
 public:
  explicit Sgd(SgdOptions options) : options_(std::move(options)) {}

  TrainingSummary minimise(const Objective& objective, const TensorList& parent, TrainingState& state,
                           const Random& random, const Progress& progress) const override {
    return minibatches(objective, parent, random).minimise(state, progress);
  }
  std::unique_ptr<TrainingSteps> steps(const Objective& objective, const TensorList& parent,
                                       const Random& random) const override {
    return std::make_unique<detail::MinibatchSteps>(minibatches(objective, parent, random));
  }
  double inverse_time(const TrainingState& state) const override { return state.time > 0 ? 1 / state.time : 0; }
  double estimated_inverse_time(const TrainingEnd& end) const override {
    return (1 - options_.momentum) / detail::planned_time(options_.loop, end.terms);
  }
  bool stacks() const override { return detail::stacks(options_.loop); }
  TensorList minimise_all(const Objective& objective, const TensorList& parent, const TensorList& theta,
                          const at::Tensor& weights, const Random& random, const Progress& progress) const override {
    return minibatches(objective, parent, random).minimise_all(theta, weights, progress);
  }

  std::int64_t planned_iterations(std::int64_t examples) const override {
    return detail::planned_iterations(options_.loop, examples);
  }
  std::int64_t iterations_an_epoch(std::int64_t terms) const override {
    return detail::iterations_an_epoch(options_.loop, terms);
  }

 private:
  detail::MinibatchSteps minibatches(const Objective& objective, const TensorList& parent, const Random& random) const {
    return {"sgd",
            options_.loop,
            objective,
            parent,
            random,
            [*this](TrainingState& at, const TensorList& g, double rate) { step(at, g, rate); },
            [*this](const TrainingState&, const TensorList&, double rate, StepAdjoint& adjoint) {
              return pull_back(rate, adjoint);
            }};
  }
  /// state.memory: the velocity. In the long run a gradient moves theta by its learning rate / (1 - momentum).
  void step(TrainingState& state, const TensorList& g, double rate) const {
    if (state.memory.empty()) {
      state.memory = {zeros_like(state.theta)};
    }
    auto& velocity = state.memory[0];
    for (std::size_t i = 0; i < g.size(); ++i) {
      velocity[i] = velocity[i] * options_.momentum + g[i];
      const auto direction = options_.nesterov ? g[i] + velocity[i] * options_.momentum : velocity[i];
      state.theta[i] = state.theta[i].detach() - rate * direction;
    }
    state.time += rate / (1 - options_.momentum);
  }
  /// The step is linear in theta, velocity and gradient.
  at::Tensor pull_back(double rate, StepAdjoint& adjoint) const {
    const auto moved = adjoint.theta * rate;
    const auto velocity = adjoint.memory[0] - (options_.nesterov ? moved * options_.momentum : moved);
    adjoint.memory[0] = velocity * options_.momentum;
    return options_.nesterov ? velocity - moved : velocity;
  }

  SgdOptions options_;
};

}  // namespace

WHENCE_METHOD(Optimizer, sgd, Sgd, SgdOptions)

}  // namespace whence
