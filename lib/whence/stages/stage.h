#pragma once
#include <memory>
#include <string>
#include <vector>

#include "whence/training/objective.h"
#include "whence/training/optimizer.h"

namespace whence {

/// One training run: theta is where minimising objective(theta; parent) stopped, parent the body that the stage before
/// handed on (empty at the first).
struct Stage {
  std::string name;
  Objective objective;
  std::shared_ptr<const Optimizer> optimizer;
  TensorList theta;
  TensorList parent;

  /// The body that the next stage starts from: the merged parameters without the head.
  TensorList handed_on() const { return objective.merge(theta, parent).without("head.").values(); }
};

/// Stages in the order in which they were trained: each one's parent is what the one before handed on.
using Chain = std::vector<Stage>;

}  // namespace whence
