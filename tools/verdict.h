#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "whence/evaluate/verdict.h"

namespace whence::cli {

/// The verdict of an evaluation.json or evaluation-lds.json, from its numbers.
Verdict verdict_of_evaluation(const nlohmann::ordered_json& evaluation);

/// The evaluation in a result directory that says most: against retraining, else lds; nothing where there is none.
std::optional<nlohmann::ordered_json> evaluation_of(const std::filesystem::path& folder);

/// The verdict of a ranking, from its run.json and what its evaluation found. `folder`, where it is kept, stands in the
/// command that would check it.
Verdict verdict_of_ranking(const nlohmann::ordered_json& run, const std::optional<nlohmann::ordered_json>& evaluation,
                           const std::filesystem::path& folder = "DIR");

}  // namespace whence::cli
