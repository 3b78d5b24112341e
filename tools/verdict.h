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

/// What to type where the checkpoint of a stage of run.json is from elsewhere and no minimum: how it was trained is not
/// known, but how training goes on from it, with an example and without. Empty for any other.
std::string further_training_command(const JsonView& run, const std::string& stage);

/// The verdict of a ranking, from its run.json and what its evaluation found. `folder`, where it is kept, stands in the
/// command that would check it.
Verdict verdict_of_ranking(const JsonView& run, const std::optional<JsonView>& evaluation,
                           const std::filesystem::path& folder = "DIR");

}  // namespace whence::cli
