#pragma once
#include <vector>

#include "run_record.h"
#include "whence/attribution/leverage.h"

namespace whence::cli {

/// Removals that were predicted at a stage, and of what.
struct PredictedRemovals {
  const Stage& stage;
  at::Tensor changes;   ///< [Q, N] float64, or [Q, 1] where each query is the example itself.
  at::Tensor examples;  ///< Ids, [N] or [Q].
  Dataset queries;
  at::Tensor measured;  ///< [Q] float64
  Measurement measurement = Measurement::kLoss;
  const InverseOptions* inverse = nullptr;  ///< Null where the method has no curvature.
  bool own() const { return changes.size(1) == 1 && queries.size() == examples.numel(); }
};

/// Removals of examples for their own loss: of the `count` that move it most. scores [N].
PredictedRemovals own_removals(const Stage& stage, const at::Tensor& scores, std::int64_t count,
                               const InverseOptions* inverse);

/// Warns where leaving one example out is predicted to do what it cannot, and keeps how often in run.json.
void doubt_beyond_range(const PredictedRemovals& predicted, RunRecord& record);

/// Tells removals that a first order misses (attribution/leverage.h), no matter for --strict, and keeps them in
/// run.json for the verdict. `queries`: whose numbers the leverages hold;
/// the stage's own data where they are of examples' own losses.
void doubt_leverages(const Stage& stage, const std::vector<Leverage>& leverages, const Dataset& queries,
                     RunRecord& record);

}  // namespace whence::cli
