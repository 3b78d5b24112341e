// What a run makes of the scores that it has: rankings, their tokens, spot checks and intervals.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "attribution_run.h"
#include "report_cards.h"
#include "result.h"
#include "verdict.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/store/score_store.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

/// The tasks of a primed stage with their scores [T], the strongest first.
std::vector<std::pair<std::string, double>> ranked_tasks(const InnerStage& inner, const at::Tensor& scores) {
  const auto of_tasks = inner.of_tasks(scores.unsqueeze(0))[0];
  std::vector<std::pair<std::string, double>> out;
  for (std::size_t t = 0; t < inner.tasks().size(); ++t) {
    out.emplace_back(inner.tasks()[t].name, of_tasks[static_cast<std::int64_t>(t)].item<double>());
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return std::abs(a.second) > std::abs(b.second); });
  return out;
}

}  // namespace

std::optional<JsonView> AttributionRun::evaluation() const {
  if (spot_checked_) {
    return JsonView(*spot_checked_, "evaluation.json");
  }
  const auto* held = out_->finished(record_.key(), {});
  return held != nullptr ? evaluation_of(*held) : std::nullopt;
}

bool AttributionRun::spot_check(const SpotCheck& asked) {
  const auto known = evaluation();
  const auto& data = chain_[stages_.front()].objective.data();
  if (known && (*known)["against"] == "retraining" &&
      (*known)["examples"].get<std::int64_t>() >= std::min(asked.examples, data.size())) {
    return true;
  }
  record_.phase("spot-check", "retrain");
  const auto scores = read_scores(out_->find("scores.safetensors")).stages.front().scores.to(at::kDouble);
  Trainings trainings({pipeline_, chain_, stages_.front(), queries_, measurement_, "",
                       judged_from_start(pipeline_, chain_, stages_.front()), out_->folder() / "bank"});
  Json found;
  try {
    found =
        cli::spot_check(trainings, scores, attributor_->predicts_removal(normalization_), asked, line_.flag("quiet"));
  } catch (const Error& why) {
    end_progress();
    warn(fmt::format("the spot check is left out: {}", why.what()));
    return false;
  }
  found["verdict"] = verdict_of_evaluation({found, "evaluation.json"}).text;
  found["key"] = record_.key();
  write_text(out_->place("evaluation.json"), json_text(found, 2) + "\n");
  write_text(out_->place("evaluation.svg"), scatter_svg(leave_one_out_plot({found, "evaluation.json"})));
  if (const auto stopped = found["unconverged-trainings"].get<std::int64_t>();
      stopped > 0 && !trainings.from_start() && !found.contains("goes-on-by")) {
    record_.doubt(
        fmt::format("{} retrainings stopped before their tolerance: the spot check carries their error", stopped));
  }
  spot_checked_ = std::move(found);
  record_.json()["verdict"] =
      verdict_of_ranking(record_.view(), evaluation(), line_.has("out") ? out_->folder() : fs::path()).text;
  return true;
}

std::vector<Ranking> AttributionRun::rankings(std::int64_t top) {
  auto out = ranked(top);
  const auto known = add_intervals(out, evaluation(), read_scores(out_->find("scores.safetensors")), record_.view());
  record_.json()["intervals"] = confidence_text(known, record_.view());
  return out;
}

std::vector<Ranking> AttributionRun::ranked(std::int64_t top) const {
  const auto scores = read_scores(out_->find("scores.safetensors"));
  const auto predictions = predict(chain_.back(), queries_);
  std::vector<Ranking> out;
  for (std::int64_t q = 0; q < queries_.size(); ++q) {
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      auto ranking = rank_examples(scores.stages.at(s).scores[q], scores.stages.at(s).example_ids, top, measurement_,
                                   attributor_->predicts_removal(normalization_));
      ranking.query = queries_.ids()[q].item<std::int64_t>();
      ranking.stage = chain_[stages_[s]].name;
      ranking.measurement = measurements_[q].item<double>();
      if (!predictions.empty()) {
        ranking.prediction = predictions.at(static_cast<std::size_t>(q));
      }
      const auto* inner = chain_[stages_[s]].objective.inner();
      if (inner != nullptr && attributor_->predicts_removal(normalization_)) {
        ranking.tasks = ranked_tasks(*inner, scores.stages.at(s).scores[q]);
      }
      for (auto* list : {&ranking.proponents, &ranking.opponents}) {
        for (auto& entry : *list) {
          const auto known = tokens_.find({ranking.query, ranking.stage, entry.example});
          entry.tokens = known == tokens_.end() ? decltype(entry.tokens){} : known->second;
        }
      }
      out.push_back(std::move(ranking));
    }
  }
  return out;
}

void AttributionRun::score_tokens(const VectorCache& cache) {
  if (top_ == 0 ||
      std::none_of(stages_.begin(), stages_.end(), [&](auto k) { return chain_[k].objective.data().is_text(); })) {
    return;
  }
  const auto rankings = ranked(top_);
  const auto progress = terminal_progress(line_.flag("quiet"));
  const auto task = this->task();
  TokenScorer scorer(task, *source_, cache);
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const auto stage = stages_[i % stages_.size()];
    const auto& data = chain_[stage].objective.data();
    if (!data.is_text()) {
      continue;
    }
    report(progress, {"score tokens", static_cast<std::int64_t>(i), static_cast<std::int64_t>(rankings.size()), ""});
    for (const auto* list : {&rankings[i].proponents, &rankings[i].opponents}) {
      for (const auto& entry : *list) {
        const auto [known, added] = tokens_.try_emplace({rankings[i].query, rankings[i].stage, entry.example});
        if (!added) {
          continue;
        }
        const auto row = row_of(data, entry.example);
        const auto scores = scorer.scores(stage, static_cast<std::int64_t>(i / stages_.size()), row);
        const auto texts = data.token_texts(row);
        for (std::size_t t = 0; scores.defined() && t < texts.size(); ++t) {
          known->second.emplace_back(texts[t], scores[static_cast<std::int64_t>(t)].item<double>());
        }
      }
    }
  }
  end_progress();
}

void AttributionRun::keep_tokens(const std::vector<Ranking>& rankings) {
  for (const auto& ranking : rankings) {
    for (const auto* list : {&ranking.proponents, &ranking.opponents}) {
      for (const auto& entry : *list) {
        tokens_[{ranking.query, ranking.stage, entry.example}] = entry.tokens;
      }
    }
  }
}

}  // namespace whence::cli
