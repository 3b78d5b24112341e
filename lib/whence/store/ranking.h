#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "whence/attribution/measurement.h"
#include "whence/attribution/prediction.h"

namespace whence {

struct RankedExample {
  std::int64_t example;  ///< Id.
  double score;
  /// -score / N: the predicted change of the measurement, in its unit, when the example is left out. None of methods
  /// that predict none.
  std::optional<double> removal;
  std::vector<std::pair<std::string, double>> tokens = {};  ///< Of a text: each token and what it adds to the score.
  /// Where 90 % of such changes lie that retraining finds; none where nothing tells.
  std::optional<std::pair<double, double>> interval = {};
  bool order_unsure = false;  ///< Its interval and that of the next in its list overlap.
};

/// The strongest examples of one stage for one query. Proponents speak for the query's outcome, opponents against it:
/// leaving a proponent out makes the outcome less likely. So those of a loss have negative scores, those of a
/// log-probability, a logit or a margin positive ones; TracIn and captum use the words so.
struct Ranking {
  std::int64_t query = 0;  ///< Id.
  std::string stage;       ///< Empty where the result has one stage only.
  double measurement = 0;
  std::optional<Prediction> prediction = {};   ///< What the model says of the query.
  std::vector<RankedExample> proponents = {};  ///< The strongest first.
  std::vector<RankedExample> opponents = {};   ///< The strongest first.
  /// Of a primed stage: each task and the score of its term, which leaving it out takes away; the strongest first.
  std::vector<std::pair<std::string, double>> tasks = {};
};

/// Fills a ranking's two lists with the `top` strongest of scores [N], which are of `measurement`, over example_ids [N]
/// int64; fewer where fewer speak for the outcome, or against it. Equal scores go by lower id; a score of 0 is on
/// neither side. `predicts_removal`: Attributor::predicts_removal. The rest of the ranking is the caller's. Throws
/// NumericalError on a score that is not finite.
Ranking rank_examples(const at::Tensor& scores, const at::Tensor& example_ids, std::int64_t top,
                      Measurement measurement, bool predicts_removal = true);

/// Fills order_unsure of all entries from their intervals.
void mark_unsure_order(Ranking& ranking);

/// ranking.jsonl: one line a ranking, appearing whole or not at all. Throws NumericalError on a number that JSON cannot
/// hold.
void write_rankings(const std::filesystem::path& path, const std::vector<Ranking>& rankings);
/// Throws DataError naming the file and the line.
std::vector<Ranking> read_rankings(const std::filesystem::path& path);

}  // namespace whence
