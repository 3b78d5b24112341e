#pragma once
#include <string>
#include <vector>

#include "whence/core/progress.h"
#include "whence/core/registry.h"
#include "whence/training/objective.h"

namespace whence {

/// What a validation (validation.h) measured after an iteration.
struct ValidationResult {
  std::int64_t iteration = 0;
  double loss = 0;
  double accuracy = 0;  ///< NaN where the examples are of no classes.
  double time = 0;      ///< TrainingState::time then; 0: not known.
};

/// Where training stands between two iterations: all that is needed to go on with the same bits.
struct TrainingState {
  TensorList theta;
  std::int64_t iteration = 0;
  std::vector<TensorList>
      memory;       ///< What the optimizer carries along: moments, or curvature pairs. Empty at the start.
  double time = 0;  ///< Sum of the steps' learning rates, divided by 1 - momentum; 0 where there are none.
  std::vector<ValidationResult> validation = {};  ///< What has been measured so far, in order.
  TensorList best = {};                           ///< Theta where the best of it was measured.
};

/// How training ended. Not reaching the tolerance is an outcome, not an exception.
struct TrainingSummary {
  bool converged = false;  ///< |grad Phi| met the tolerance.
  std::int64_t iterations = 0;
  double objective = -1;      ///< Phi over all the data at the end.
  double gradient_norm = -1;  ///< |grad Phi| over all the data at the end.
  double seconds = -1;
  std::string message;                            ///< Why it stopped.
  std::vector<ValidationResult> validation = {};  ///< Of a training that was validated, what was measured, in order.
  std::int64_t kept = -1;      ///< Of such a one, the iteration after which the parameters were what it ends with.
  bool stopped_early = false;  ///< Whether it ended as its validation had not been better for long.
  double inverse_time = 0;     ///< Optimizer::inverse_time() where what it kept was; 0: it has none.
};

/// Where a training ended, of which no more is known.
struct TrainingEnd {
  std::int64_t terms = 0;    ///< Objective::terms
  double gradient_norm = 0;  ///< |grad Phi|
  double term_norm = 0;      ///< Root mean square of |grad loss_i|.
  std::int64_t entries = 0;  ///< Of what was trained.
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
  /// The curvature up to which training from 0 to `state` had no time to go, in a curvature's unit: along directions of
  /// less it is not near the minimum, and damping by it is what early stopping comes to (G. Raskutti et al., "Early
  /// stopping and non-parametric regression", JMLR 2014). 1 / state.time where steps follow the gradient; else that
  /// over the preconditioner, as the one number with the Frobenius norm of this diagonal matrix, of entries that had a
  /// gradient. Clipped steps count as whole. 0 where steps have no learning rate, or before the first. Cost: a pass
  /// over the parameters.
  virtual double inverse_time(const TrainingState&) const { return 0; }
  /// The same of a whole training by this that others made: by the learning rates that it would have, and for Adam by a
  /// minibatch's gradient at the end, as large in every entry. Too small where many had none. 0 where it has none.
  virtual double estimated_inverse_time(const TrainingEnd&) const { return 0; }
  /// Iterations that see all of `terms` terms once.
  virtual std::int64_t iterations_an_epoch(std::int64_t /*terms*/) const { return 1; }
};

WHENCE_DECLARE_ROOM(Optimizer)

}  // namespace whence
