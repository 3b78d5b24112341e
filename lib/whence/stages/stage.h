#pragma once
#include <memory>
#include <string>
#include <vector>

#include "whence/training/objective.h"
#include "whence/training/optimizer.h"

namespace whence {

/// Where training stood at the end of one of the equally long segments that it was cut into.
struct Snapshot {
  TensorList theta;
  TensorList preconditioner;   ///< Optimizer::preconditioner, as it was here; empty where steps follow the gradient.
  double time = 0;             ///< Of the segment's steps: the sum of the learning rates, divided by 1 - momentum.
  std::int64_t steps = 0;      ///< Of the segment.
  std::int64_t iteration = 0;  ///< Steps since training began.
};

/// One training run: theta is where minimising objective(theta; parent) stopped, parent the body that the stage before
/// handed on (empty at the first).
struct Stage {
  std::string name;
  Objective objective;
  std::shared_ptr<const Optimizer> optimizer;
  TensorList theta;
  TensorList parent;
  std::vector<Snapshot> trajectory = {};  ///< In order, the last at theta; empty where none was kept.

  /// The body that the next stage starts from: the merged parameters without the head.
  ParameterSet handed_on() const { return objective.model().head().body(objective.merge(theta, parent)); }
};

/// Stages in the order in which they were trained: each one's parent is what the one before handed on.
using Chain = std::vector<Stage>;

/// What keeps influence from going through the chain, a sentence for each: a stage that hands nothing on, or whose
/// objective uses nothing of the stage before. Reads no data and no weights.
std::vector<std::string> disconnections(const Chain& chain);

}  // namespace whence
