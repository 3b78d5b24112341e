#pragma once
#include "whence/training/detail/minibatch.h"

namespace whence::detail {

/// What adam and adamw share. Their structs pass `field` on to this one's fields.
struct AdamOptions {
  MinibatchOptions loop{.learning_rate = 1e-3};
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    MinibatchOptions::fields(self.loop, field);
    field("beta1", self.beta1, kBelowOne, "decay of the mean gradient; the paper's");
    field("beta2", self.beta2, kBelowOne, "decay of the mean squared gradient; the paper's");
    field("epsilon", self.epsilon, kPositive, "added to the root of the mean squared gradient; the paper's");
  }

 private:
  static constexpr Bound kBelowOne{0, 1 - 1e-12, "in [0, 1)"};
};

/// D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1; with `decay` > 0 I.
/// Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.
class AdamSteps : public SteppingOptimizer, public StackedTraining {
 public:
  /// `decay` shrinks matrices (parameters of two dimensions or more) by learning rate x decay a step.
  AdamSteps(const char* name, AdamOptions options, double decay)
      : name_(name), options_(std::move(options)), decay_(decay) {}

  TrainingSummary minimise(const Objective& objective, const TensorList& parent, TrainingState& state,
                           const Random& random, const Progress& progress) const override;
  std::unique_ptr<TrainingSteps> steps(const Objective& objective, const TensorList& parent,
                                       const Random& random) const override;
  /// A decay is of matrices alone, and a stack of biases looks like one.
  bool stacks() const override { return decay_ == 0 && detail::stacks(options_.loop); }
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
  /// 1 / (sqrt(v) + epsilon) with the bias of v corrected; ones before the first step.
  TensorList preconditioner(const TrainingState& state) const override;
  double inverse_time(const TrainingState& state) const override;
  double estimated_inverse_time(const TrainingEnd& end) const override;

 private:
  MinibatchSteps minibatches(const Objective& objective, const TensorList& parent, const Random& random) const;
  at::Tensor scale(const at::Tensor& square, std::int64_t steps) const;
  void step(TrainingState& state, const TensorList& g, double rate) const;
  at::Tensor pull_back(const TrainingState& before, const TensorList& g, double rate, StepAdjoint& adjoint) const;

  const char* name_;
  AdamOptions options_;
  double decay_;
};

}  // namespace whence::detail
