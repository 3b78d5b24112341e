// Trainings with one example left out: from where the stage's own training began, or further from its end.
#include <ATen/ATen.h>

#include <algorithm>

#include "truth_ceiling.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/retraining.h"

namespace whence {
namespace cli {
namespace {

/// Rows spread over the order of the methods' mean ranks, so that none of them has picked its own.
at::Tensor spread_rows(const std::vector<Comparison::Scored>& methods, std::int64_t count) {
  TensorList ranks;
  for (const auto& method : methods) {
    if (method.claim != Claim::kNothing) {
      ranks.push_back(method.scores.mean(0).argsort().argsort().to(at::kDouble));
    }
  }
  return rows_across_scores(at::stack(ranks), count);
}

class LeftOut : public CeilingedTruth {
 public:
  explicit LeftOut(NoOptions) : CeilingedTruth("pearson", pearson, 0.8) {}
  std::vector<std::string> flags() const override { return {"examples", "no-ceiling", "optimizer", "train-from"}; }
  bool judges_results() const override { return true; }
  std::string more() const override { return "--examples"; }

  std::optional<Json> compare(Comparison& at) const override {
    const auto n = at.data().size();
    const auto examples = std::min(n, at.line().get<std::int64_t>("examples"));
    const auto all_ones = at::ones({1, n}, at::kDouble);
    const auto weights_of = [&](const at::Tensor& rows) { return at::cat({all_ones, leave_one_out_weights(rows, n)}); };
    const auto before = at.scored_before();  // else it is not known yet which examples are left out
    Comparison::Work work{.weights = all_ones, .seeds = at.seeds(), .count_flag = "examples"};
    if (before) {
      work.weights = weights_of(spread_rows(*before, examples));
    } else {
      work.later = examples * static_cast<std::int64_t>(work.seeds.size());
    }
    if (at.planned(work)) {
      return std::nullopt;
    }
    const auto methods = before ? *before : at.scored();
    const auto rows = spread_rows(methods, examples);
    const auto trained = at.train(weights_of(rows), at.seeds());
    const double apart = at.check_repeats(trained[0].measurements[0]);
    const auto actual = found_removals(trained[0].measurements);
    const auto other = trained.size() > 1 ? found_removals(trained[1].measurements) : at::Tensor();
    const auto draws = at.random().stream("bootstrap");
    Json out{{"examples", rows.size(0)}};
    out.update(at.told(trained));
    out["reference-apart"] = json_number(apart);
    out["ceiling"] = ceiling_of(actual, other, draws);
    for (const auto& method : methods) {
      const auto predicted = predicted_removals(method.scores, rows);
      Json row{{"method", method.method}};
      add_agreement(row, predicted, actual, other, draws);
      row["spearman"] = json_number(mean_over_queries(predicted, actual, spearman));
      row["slope"] = method.claim == Claim::kRemoval
                         ? json_number(least_squares(to_numbers(predicted), to_numbers(actual)).slope)
                         : Json(nullptr);
      row["seconds"] = method.seconds;
      out["table"].push_back(std::move(row));
    }
    return out;
  }

  Columns columns(const Json& row) const override {
    auto out = CeilingedTruth::columns(row);
    out.emplace_back("spearman", number_cell(row["spearman"]));
    out.emplace_back("slope", number_cell(row["slope"]));
    return out;
  }
};

class FurtherTraining : public LeftOut {
 public:
  using LeftOut::LeftOut;
  std::vector<std::string> flags() const override { return {"examples", "no-ceiling", "optimizer"}; }
  bool judges_results() const override { return false; }
  std::string train_from(const CommandLine&) const override { return "checkpoint"; }
};

}  // namespace
}  // namespace cli

WHENCE_METHOD(cli::Truth, retraining, cli::LeftOut, NoOptions)
WHENCE_METHOD(cli::Truth, further_training, cli::FurtherTraining, NoOptions)

}  // namespace whence
