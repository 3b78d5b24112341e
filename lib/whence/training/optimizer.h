#pragma once
#include <string>
#include <vector>

#include "whence/core/progress.h"
#include "whence/core/registry.h"
#include "whence/training/objective.h"

namespace whence {

/// Where training stands between two iterations: all that is needed to go on with the same bits.
struct TrainingState {
  TensorList theta;
  std::int64_t iteration = 0;
  std::vector<TensorList>
      memory;       ///< What the optimizer carries along: moments, or curvature pairs. Empty at the start.
  double time = 0;  ///< Sum of the steps' learning rates, divided by 1 - momentum; 0 where there are none.
};

/// How training ended. Not reaching the tolerance is an outcome, not an exception.
struct TrainingSummary {
  bool converged = false;  ///< |grad Phi| met the tolerance.
  std::int64_t iterations = 0;
  double objective = -1;      ///< Phi over all the data at the end.
  double gradient_norm = -1;  ///< |grad Phi| over all the data at the end.
  double seconds = -1;
  std::string message;  ///< Why it stopped.
};

/// Minimises an objective over theta.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Goes on from `state` to the end. `random` draws the order of minibatches; an epoch's order depends on its number
  /// alone. When `progress` throws, `state` is that after the last whole iteration. Throws NumericalError, with the
  /// iteration, when the objective is no longer finite.
  virtual TrainingSummary minimise(const Objective& objective, const TensorList& parent, TrainingState& state,
                                   const Random& random, const Progress& progress) const = 0;
  /// How many iterations minimise() makes with `examples` terms (Objective::terms), mostly examples, each with a
  /// learning rate. Throws InvalidArgument with the reason where that is not known before.
  virtual std::int64_t planned_iterations(std::int64_t /*examples*/) const {
    throw InvalidArgument("its steps have no learning rate: use sgd or adam");
  }
  /// What a step that starts at `state` multiplies the gradient's entries by, apart from the learning rate; empty where
  /// it follows the gradient.
  virtual TensorList preconditioner(const TrainingState&) const { return {}; }
};

WHENCE_DECLARE_ROOM(Optimizer)

}  // namespace whence
