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

/// The verdict of a ranking, from its run.json and what its evaluation found. `folder`, where it is kept, stands in the
/// command that would check it.
Verdict verdict_of_ranking(const JsonView& run, const std::optional<JsonView>& evaluation,
                           const std::filesystem::path& folder = "DIR");

}  // namespace whence::cli
