#pragma once
#include <optional>
#include <vector>

#include "json.h"
#include "trainings.h"
#include "whence/evaluate/confidence.h"
#include "whence/evaluate/retraining.h"
#include "whence/store/ranking.h"
#include "whence/store/score_store.h"

namespace whence::cli {

/// evaluation.json's agreement of predicted removals, of scores [Q, N] float64, with what retraining found:
/// `truth` has the measurements with every example and then without each of `rows` [E]. `seconds` a training.
Json agreement_json(const Stage& stage, const Dataset& queries, const at::Tensor& scores, const at::Tensor& rows,
                    const Retraining& truth, bool predicts_removal, double seconds);

struct SpotCheck {
  std::int64_t examples = 0;  ///< To retrain without, spread across the range of scores.
  double seconds = 600;       ///< After which no more retrainings begin.
};
/// What spot checks of a stage find, as evaluation.json has it, of scores [Q, N] float64 that its `trainings` judge;
/// what their bank has is not trained again. How long it will take is told on standard error before. Throws
/// InvalidArgument where two examples would take longer than the limit.
Json spot_check(Trainings& trainings, const at::Tensor& scores, bool predicts_removal, const SpotCheck& asked,
                bool quiet);

/// Gives the rankings of a result intervals, where `evaluation` retrained enough examples of their stage, and returns
/// what the intervals rest on; nothing where there are none. `run` is the result's run.json, or what will be.
std::optional<RemovalConfidence> add_intervals(std::vector<Ranking>& rankings,
                                               const std::optional<JsonView>& evaluation, const Scores& scores,
                                               const JsonView& run);

/// What the intervals of a ranking rest on, in a phrase. `run` as above.
std::string confidence_text(const std::optional<RemovalConfidence>& confidence, const JsonView& run);

}  // namespace whence::cli
