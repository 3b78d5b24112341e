#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "whence/report/svg.h"
#include "whence/stages/pipeline.h"
#include "whence/store/score_store.h"

namespace whence::cli {

/// run.json of a result directory. Throws DataError where the folder holds none, or a damaged one.
nlohmann::ordered_json read_run(const std::filesystem::path& folder);

/// The scores of one stage in a result.
const StageScores& scores_of(const Scores& scores, const nlohmann::ordered_json& run, const std::string& stage);

/// Throws DataError naming the first of the pipeline's files that has changed since the run.
void check_inputs_unchanged(const nlohmann::ordered_json& run);

/// The scatter of predicted on actual changes that evaluation.json holds.
ScatterPlot leave_one_out_plot(const nlohmann::ordered_json& evaluation);

/// `text` for the terminal on a background for `share`, from -1 (orange) to 1 (blue), where standard output shows
/// colours (NO_COLOR, CLICOLOR_FORCE).
std::string shaded(const std::string& text, double share);
/// `text` on one line, cut after `most` bytes.
std::string one_line(const std::string& text, std::size_t most);

/// A text for the terminal, on one line and cut where it is long; where standard output shows colours (NO_COLOR,
/// CLICOLOR_FORCE) and `scores` are there, each token is shaded by its own.
std::string shaded_text(const std::vector<std::pair<std::string, double>>& scores,
                        const std::vector<std::string>& tokens);

/// "7" or "sneaker": the class of an example, or its value; empty where tokens are predicted.
std::string example_label(const Dataset& data, std::int64_t row);
/// Row of the example with this id. Throws DataError when there is none.
std::int64_t row_of(const Dataset& data, std::int64_t id);

}  // namespace whence::cli
