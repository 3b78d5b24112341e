#pragma once
#include "whence/training/optimizer.h"

namespace whence {

/// What an optimizer also is that can train models side by side as one.
class StackedTraining {
 public:
  virtual ~StackedTraining() = default;
  /// Whether it can as it is set: its steps treat every entry alike and know no end but their number.
  virtual bool stacks() const = 0;
  /// Trains K models, all from `theta` and by the same minibatches, each with a row of the example weights [K, N]:
  /// where Optimizer::minimise() of each would end, within rounding, as stacks [K, ...]. For an objective without an
  /// inner stage, of a model that SideBySide can compute. Memory: K models and their batches. Throws NumericalError
  /// where one of them leaves the finite numbers.
  virtual TensorList minimise_all(const Objective& objective, const TensorList& parent, const TensorList& theta,
                                  const at::Tensor& weights, const Random& random, const Progress& progress) const = 0;
};

}  // namespace whence
