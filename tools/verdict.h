#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "whence/evaluate/verdict.h"
#include "whence/store/result_folder.h"

namespace whence::cli {

/// The verdict of an evaluation.json or evaluation-lds.json, from its numbers.
Verdict verdict_of_evaluation(const nlohmann::ordered_json& evaluation);

/// The evaluations that a result has: against retraining, which says most, then lds.
std::vector<nlohmann::ordered_json> evaluations_of(const Result& result);
/// The first of these.
std::optional<nlohmann::ordered_json> evaluation_of(const Result& result);

/// The verdict of a ranking, from its run.json and what its evaluation found. `folder`, where it is kept, stands in the
/// command that would check it.
Verdict verdict_of_ranking(const nlohmann::ordered_json& run, const std::optional<nlohmann::ordered_json>& evaluation,
                           const std::filesystem::path& folder = "DIR");

}  // namespace whence::cli
