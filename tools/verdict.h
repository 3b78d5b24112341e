#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "whence/core/json.h"
#include "whence/evaluate/verdict.h"

namespace whence::cli {

/// The verdict of an evaluation.json or evaluation-lds.json, from its numbers.
Verdict verdict_of_evaluation(const JsonView& evaluation);

/// What an evaluation keeps of the scores in a result directory that it judged.
std::string scores_digest(const std::filesystem::path& folder);

/// The evaluations of the scores that a result directory holds now: against retraining, which says most, then lds.
std::vector<JsonView> evaluations_of(const std::filesystem::path& folder);
/// The first of these.
std::optional<JsonView> evaluation_of(const std::filesystem::path& folder);

/// The verdict of a ranking, from its run.json and what its evaluation found. `folder`, where it is kept, stands in the
/// command that would check it.
Verdict verdict_of_ranking(const JsonView& run, const std::optional<JsonView>& evaluation,
                           const std::filesystem::path& folder = "DIR");

}  // namespace whence::cli
