#pragma once
#include <memory>
#include <vector>

#include "whence/training/optimizer.h"

namespace whence {

/// Derivatives of K measurements in a training's state.
struct StepAdjoint {
  at::Tensor theta;                ///< [K, P].
  std::vector<at::Tensor> memory;  ///< In each list of TrainingState::memory: [K, P].
};

/// What a step was made with.
struct StepTaken {
  TensorList gradient;  ///< Of the minibatch's objective, after clipping.
  double value = 0;     ///< The minibatch's objective.
  double length = 0;    ///< |gradient| before clipping.
};

/// The steps of one training, each a function of the state before it and of its minibatch's gradient: minimise() goes
/// them, and influence through training goes them again and back.
class TrainingSteps {
 public:
  virtual ~TrainingSteps() = default;
  /// The terms of the minibatch of a step: [B] int64 on the CPU.
  virtual at::Tensor terms(std::int64_t iteration) const = 0;
  /// Step state.iteration: writes to no tensor of `state`. Throws NumericalError, with the iteration, where the
  /// objective is not finite.
  virtual StepTaken advance(TrainingState& state) const = 0;
  /// Makes of the adjoint of what the step from `before` led to that of `before` itself, but for what goes through the
  /// minibatch's gradient, and returns the adjoint of that gradient before clipping, [K, P]. formulas.md 10.
  virtual at::Tensor pull_back(const TrainingState& before, const StepTaken& taken, StepAdjoint& adjoint) const = 0;
};

/// An optimizer whose training is such steps.
class SteppingOptimizer : public Optimizer {
 public:
  /// `objective` is copied, `parent` shared. Throws InvalidArgument, with the reason, where there are none.
  virtual std::unique_ptr<TrainingSteps> steps(const Objective& objective, const TensorList& parent,
                                               const Random& random) const = 0;
};

}  // namespace whence
