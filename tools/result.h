#pragma once
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>

#include "whence/attribution/prediction.h"
#include "whence/core/json.h"
#include "whence/report/svg.h"
#include "whence/stages/pipeline.h"
#include "whence/store/result_folder.h"
#include "whence/store/score_store.h"

namespace whence::cli {

/// `spec` with those options alone that are not their defaults: what a reader is told.
template <class Base>
std::string brief_spec(const std::string& spec) {
  const auto [method, given] = find_method<Base>(spec);
  std::string text(method->name);
  const auto defaults = method->options("");
  const auto options = method->options(given);
  char separator = ':';
  for (std::size_t i = 0; i < options.size(); ++i) {
    if (options[i].value != defaults[i].value) {
      text += separator + options[i].name + '=' + options[i].value;
      separator = ',';
    }
  }
  return text;
}

/// Throws DataError where a result is none of whence rank or score.
void check_scored(const Result& result);

/// A number, or `otherwise` for what JSON cannot hold or does not.
double number_of(const JsonView& json, const char* key, double otherwise = std::numeric_limits<double>::quiet_NaN());

/// The most that derivatives grew on their way back through the training of a stage of run.json; 0 where none went.
double adjoint_growth(const JsonView& stage);

/// Whether a run.json is one of --self, which has no queries.
bool is_self(const JsonView& run);

/// The queries that a result was made for, or more of the same split.
Dataset queries_of(const Pipeline& pipeline, const JsonView& run);

/// The scores of one stage in a result.
const StageScores& scores_of(const Scores& scores, const JsonView& run, const std::string& stage);
/// The row of a query in scores; -1 where it is not there.
std::int64_t query_row(const Scores& scores, std::int64_t query);

/// A line for each of the files that a run.json was made from that has changed since. Cost: SHA-256 of all of them.
std::vector<std::string> changed_inputs(const JsonView& run);
/// Throws DataError naming the first of the pipeline's files that has changed since the run.
void check_inputs_unchanged(const JsonView& run);

/// Throws InvalidArgument where the folder has a result, finished or begun, of another command than `makers`, which
/// make the same kind.
void check_kind(const ResultWriter& out, const std::vector<std::string>& makers);

/// Throws InvalidArgument where one of `outputs` is a file that `run` (a run.json) was made from.
void check_spares_inputs(const JsonView& run, const std::vector<std::filesystem::path>& outputs);
/// The same of a result: files of these names in `folder`, and its run.json.
void check_spares_inputs(const JsonView& run, const std::filesystem::path& folder,
                         const std::vector<std::string>& names);

/// Throws InvalidArgument where a file lies there that does not begin like what is to be written, as another page or
/// plot does.
void check_replaceable(const std::filesystem::path& output, std::string_view beginning);
inline constexpr std::string_view kPageBeginning = "<!DOCTYPE html>", kSvgBeginning = "<svg ";

/// The scatter of predicted on actual changes that evaluation.json holds.
ScatterPlot leave_one_out_plot(const JsonView& evaluation);

/// `text` for the terminal on a background for `share`, from -1 (harmful, orange) to 1 (helpful, blue), where standard
/// output shows colours (NO_COLOR, CLICOLOR_FORCE).
std::string shaded(const std::string& text, double share);
/// `text` on one line, cut after `most` bytes.
std::string one_line(const std::string& text, std::size_t most);

/// The tokens that a reader sees of the text in `row`, each with its score; zeros where `scores` is not of that text.
std::vector<std::pair<std::string, double>> visible_tokens(const Dataset& data, std::int64_t row,
                                                           const std::vector<std::pair<std::string, double>>& scores);
/// A text for the terminal, on one line and cut where it is long; where standard output shows colours (NO_COLOR,
/// CLICOLOR_FORCE) each token is shaded by its score, blue where it has the sign of helpful ones, `outcome`.
std::string shaded_text(const std::vector<std::pair<std::string, double>>& tokens, double outcome);

/// What the model says of a query: "predicts 9 (p 0.93), expected 5 (p 0.041)".
std::string prediction_text(const Prediction& prediction);

/// "7" or "sneaker": the class of an example, or its value; empty where tokens are predicted.
std::string example_label(const Dataset& data, std::int64_t row);
/// Where all examples come from: "rows of train.tsv"; empty where that is not one file.
std::string source_text(const Dataset& data);
/// Where an example comes from, beside source_text: "row 17".
std::string short_origin_text(const Dataset& data, std::int64_t row);
/// Row of the example with this id. Throws DataError when there is none.
std::int64_t row_of(const Dataset& data, std::int64_t id);

}  // namespace whence::cli
