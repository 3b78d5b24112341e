#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "whence/core/json.h"
#include "whence/evaluate/verdict.h"
#include "whence/store/result_folder.h"

namespace whence::cli {

/// The verdict of an evaluation.json or evaluation-lds.json, from its numbers.
Verdict verdict_of_evaluation(const JsonView& evaluation);

/// The evaluations that a result has: against retraining, which says most, then lds.
std::vector<JsonView> evaluations_of(const Result& result);
/// The first of these.
std::optional<JsonView> evaluation_of(const Result& result);

/// What checks a ranking of a stage of run.json, or of every stage: what to type, and before that to write where the
/// checkpoint of the stage, or of a later one, is from elsewhere and no minimum, and nothing says how it was trained.
/// Retraining would not lead back to such a checkpoint, but training goes on from it, with an example and without.
std::string check_text(const JsonView& run, const std::string& stage, const std::filesystem::path& folder);

/// An interval that a JSON object has by this key; NaN where an end is not known.
Interval interval_of(const JsonView& json, const char* key);

/// "0.82 (95 % 0.4 to 0.97) of what retraining itself reaches with another seed".
std::string share_text(double share, const Interval& interval);

/// What keeps the trainings of an evaluation from deciding: other steps of sgd than the stage's own, which favour a
/// method, or an end far from the checkpoint. Empty for others.
std::string reservation_text(const JsonView& evaluation);

/// The verdict of a ranking, from its run.json and what its evaluation found. `folder`, where it is kept, stands in the
/// command that would check it; empty: nowhere.
Verdict verdict_of_ranking(const JsonView& run, const std::optional<JsonView>& evaluation,
                           const std::filesystem::path& folder = {});

}  // namespace whence::cli
