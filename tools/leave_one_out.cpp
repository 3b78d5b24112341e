#include "leave_one_out.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "cli.h"
#include "json.h"
#include "result.h"
#include "whence/core/error.h"
#include "whence/core/parallel.h"
#include "whence/core/seconds.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/statistics.h"
#include "whence/evaluate/verdict.h"

namespace whence::cli {
namespace {

/// Root mean square of the removals that scores [N] predict.
double typical_removal(const at::Tensor& scores) {
  const auto n = static_cast<double>(scores.numel());
  return scores.to(at::kDouble).square().mean().sqrt().item<double>() / n;
}

/// Says how long the retrainings with these weights will take; throws where that is too long.
void tell_time(Trainings& trainings, const at::Tensor& weights, const SpotCheck& asked, bool quiet) {
  const auto missing = trainings.missing(weights, 0);
  if (missing == 0) {
    return;
  }
  const auto one = trainings.time(missing, asked.seconds / 3);
  const bool cut_off = !(one.at_most <= one.seconds);
  if (cut_off) {
    throw InvalidArgument(
        fmt::format("one retraining takes more than {}, and --spot-check-minutes {:g} would not see three: {}",
                    duration_words(one.seconds), asked.seconds / 60,
                    trainings.untold().empty() ? "give it more minutes" : say_optimizer_text(trainings.untold())));
  }
  const double side_by_side = static_cast<double>(std::min<std::int64_t>(threads(), missing));
  const double whole = one.seconds * std::ceil(static_cast<double>(missing) / side_by_side);
  if (!quiet) {
    end_progress();
    const auto kept = weights.size(0) - missing;
    note(fmt::format(
        "spot-check: {} retrainings of {} from {}, about {}{}{}", missing,
        trainings.chain().size() - trainings.stage_index() > 1 ? trainings.stage().name + " and what follows"
                                                               : trainings.stage().name,
        trainings.from_start() ? "where training began" : "its end on", duration_words(whole),
        kept > 0 ? fmt::format("; {} are there", kept) : std::string(),
        whole > asked.seconds
            ? fmt::format(", of which as many as {} allow (--spot-check-minutes)", duration_words(asked.seconds))
            : std::string()));
  }
}

}  // namespace

Json agreement_json(const Stage& stage, const Dataset& queries, const at::Tensor& scores, const at::Tensor& rows,
                    const Retraining& truth, bool predicts_removal, double seconds) {
  const auto& data = stage.objective.data();
  const auto actual = found_removals(truth.measurements);  // [E, Q]
  const auto predicted = predicted_removals(scores, rows);
  const auto x = to_numbers(predicted.t()), y = to_numbers(actual.t());
  const double found = pearson(x, y);
  // the queries of one example move together: an example counts once
  const auto interval = correlation_interval(found, rows.size(0));
  const auto line = least_squares(x, y);
  auto points = Json::array();
  for (std::int64_t q = 0; q < predicted.size(1); ++q) {
    for (std::int64_t e = 0; e < predicted.size(0); ++e) {
      points.push_back({{"query", queries.ids()[q].item<std::int64_t>()},
                        {"example", data.ids()[rows[e].item<std::int64_t>()].item<std::int64_t>()},
                        {"predicted", predicted[e][q].item<double>()},
                        {"actual", actual[e][q].item<double>()}});
    }
  }
  return {{"against", "retraining"},
          {"stage", stage.name},
          {"examples", rows.size(0)},
          {"queries", predicted.size(1)},
          {"pearson", found},
          {"pearson-interval-95", {interval.low, interval.high}},
          {"spearman", spearman(x, y)},
          {"slope", line.slope},
          {"intercept", line.intercept},
          {"mean-pearson-per-query", mean_over_queries(predicted, actual, pearson)},
          {"mean-spearman-per-query", mean_over_queries(predicted, actual, spearman)},
          {"predicts-removal", predicts_removal},
          {"available-examples", data.size()},
          {"seconds-a-training", seconds},
          {"largest-gradient-norm", truth.largest_gradient_norm},
          {"unconverged-trainings", truth.unconverged},
          {"points", std::move(points)}};
}

Json spot_check(Trainings& trainings, const at::Tensor& scores, bool predicts_removal, const SpotCheck& asked,
                bool quiet) {
  const auto n = trainings.stage().objective.data().size();
  auto rows = rows_across_scores(scores, asked.examples);
  // in an order of which every beginning is spread over the range too
  rows = rows.index_select(0, trainings.random(0).stream("order").permutation(rows.size(0)));
  const auto weights = at::cat({at::ones({1, n}, at::kDouble), leave_one_out_weights(rows, n)});
  const auto total = weights.size(0);
  tell_time(trainings, weights, asked, quiet);
  const auto progress = terminal_progress(quiet);
  trainings.check_reference(progress);
  const auto start = Clock::now();
  Retraining truth;
  std::vector<at::Tensor> measured;
  std::int64_t done = 0, made = 0;
  while (done < total && (done < 3 || seconds_since(start) < asked.seconds)) {
    const auto count = std::min<std::int64_t>(std::max<std::int64_t>(3, threads()), total - done);
    const auto some = weights.narrow(0, done, count);
    made += trainings.missing(some, 0);
    const auto part = trainings.run(some, 0, [&](ProgressEvent event) {
      event.done += done;
      event.total = total;
      report(progress, event);
    });
    measured.push_back(part.measurements);
    truth.largest_gradient_norm = std::max(truth.largest_gradient_norm, part.largest_gradient_norm);
    truth.unconverged += part.unconverged;
    done += count;
  }
  end_progress();
  truth.measurements = at::cat(measured);
  auto out =
      agreement_json(trainings.stage(), trainings.queries(), scores, rows.narrow(0, 0, done - 1), truth,
                     predicts_removal, seconds_since(start) / static_cast<double>(std::max<std::int64_t>(1, made)));
  out.update(trainings.told());
  out["reference-apart"] = trainings.apart(truth.measurements[0]);
  return out;
}

namespace {

/// What an evaluation tells of the removals of a stage that it was not made of. Scores [Q, N], by query_ids [Q].
/// Nothing where too few examples were retrained, or those of another stage.
std::optional<RemovalConfidence> confidence_of(const JsonView& evaluation, const std::string& stage,
                                               const at::Tensor& scores, const at::Tensor& query_ids) {
  if (evaluation["against"] != "retraining" || evaluation["stage"] != stage) {
    return std::nullopt;
  }
  std::map<std::int64_t, double> typical;
  for (std::int64_t q = 0; q < query_ids.numel(); ++q) {
    typical[query_ids[q].item<std::int64_t>()] = typical_removal(scores[q]);
  }
  std::vector<RetrainedRemoval> pairs;
  for (const auto& point : evaluation["points"].list()) {
    const auto query = typical.find(point["query"].get<std::int64_t>());
    if (query != typical.end()) {
      pairs.push_back({point["example"].get<std::int64_t>(), number_of(point, "predicted"), number_of(point, "actual"),
                       query->second});
    }
  }
  return RemovalConfidence::learn(pairs);
}

/// `scores` [N] are of its query.
void add_intervals(Ranking& ranking, const RemovalConfidence& confidence, const at::Tensor& scores) {
  const auto n = static_cast<double>(scores.numel());
  const double typical = typical_removal(scores);
  for (auto* list : {&ranking.proponents, &ranking.opponents}) {
    for (auto& entry : *list) {
      const auto found = confidence.interval(-entry.score / n, typical);
      entry.interval = {found.low, found.high};
    }
  }
  mark_unsure_order(ranking);
}

}  // namespace

std::optional<RemovalConfidence> add_intervals(std::vector<Ranking>& rankings,
                                               const std::optional<JsonView>& evaluation, const Scores& scores,
                                               const JsonView& run) {
  std::map<std::string, std::optional<RemovalConfidence>> known;
  std::optional<RemovalConfidence> any;
  for (auto& ranking : rankings) {
    const auto& held = scores_of(scores, run, ranking.stage).scores;
    const auto row = query_row(scores, ranking.query);
    if (!evaluation || row < 0) {
      continue;
    }
    const auto [at, added] = known.try_emplace(ranking.stage);
    if (added) {
      at->second = confidence_of(*evaluation, ranking.stage, held, scores.query_ids);
    }
    if (at->second) {
      any = at->second;
      add_intervals(ranking, *at->second, held[row]);
    }
  }
  return any;
}

std::string confidence_text(const std::optional<RemovalConfidence>& confidence, const JsonView& run) {
  if (confidence) {
    return fmt::format(
        "90 % of the changes that retraining finds lie in the intervals, by {} examples that were left out",
        confidence->examples());
  }
  std::string first;
  for (const auto& [name, stage] : run["stages"].items()) {
    if (stage.value("trained-elsewhere-by", "none") == "") {
      first = fmt::format(", once [[stage]] {} says its optimizer", name);
    }
  }
  return fmt::format("none: they rest on retraining without {} examples or more (--spot-check 20{})",
                     RemovalConfidence::kFewest, first);
}

}  // namespace whence::cli
