// `--self` of rank and score: each example's score for its own loss.
#include "self_influence.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "json.h"
#include "removal_doubts.h"
#include "result.h"
#include "say.h"
#include "verdict.h"
#include "whence/attribution/self_influence.h"
#include "whence/core/files.h"
#include "whence/core/tensors.h"
#include "whence/store/self_scores.h"

namespace whence::cli {
namespace fs = std::filesystem;

void AttributionRun::run_self(const fs::path& folder) {
  out_.emplace(folder, outputs());
  check_kind(*out_, kAttributionCommands);
  record_.phase("load");
  load();
  record_.add_inputs(pipeline_, queries_);
  check_spares_inputs(record_.view(), folder, outputs());
  record_.phase("check");
  within_memory([&] { choose(); });
  if (!reuse()) {
    within_memory([&] { solve([&] { score_self(); }); });
  }
}

void AttributionRun::score_self() {
  const auto dtype = pipeline_.options().dtype == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<SelfScores> scores;
  std::vector<AttributionSolves> solves;
  std::vector<StageEvidence> evidence(chain_.size());
  for (const auto k : stages_) {
    const auto progress = terminal_progress(line_.flag("quiet"));
    auto found = self_influence(self_task(k), progress);
    end_progress();
    const auto name = every_stage() ? "self." + chain_[k].name : std::string("self");
    scores.push_back({name, found.scores.to(dtype), chain_[k].objective.data().ids().cpu()});
    solves.push_back({chain_[k].name, std::move(found.summaries), found.evidence.products});
    evidence[k] = found.evidence;
    if (predicts_removal()) {
      constexpr std::int64_t kLooked = 64;
      doubt_beyond_range(
          own_removals(chain_[k], found.scores, kLooked, attributor_->uses_curvature() ? &choice_.options : nullptr),
          record_);
      doubt_leverages(chain_[k], found.leverages, chain_[k].objective.data(), record_);
    }
    for (const auto& text : found.warnings) {
      record_.warning(text);
    }
    for (const auto& text : found.notes) {
      record_.doubt(text);
    }
    record_.json()["stages"][chain_[k].name]["self-influence"] = found.how;
    record_.json()["stages"][chain_[k].name]["approximate-self-influence"] = found.approximate;
  }
  record_.add_solves(solves, evidence, chain_);
  write_self_scores(out_->place("scores.safetensors"), scores, record_.key());
  record_.json()["verdict"] = verdict_of_ranking(record_.view(), std::nullopt).text;  // no evaluation is of --self
}

SelfInfluenceTask AttributionRun::self_task(std::size_t stage) const {
  // what is picked for a few queries is not what serves an example each
  const bool open = create<Solver>(asked_.solver)->picks();
  return {chain_,          stage,        attributor_,        curvature_, open ? nullptr : solver_,
          choice_.options, query_block_, near_minimum(stage)};
}

std::vector<AttributionRun::SelfRanking> AttributionRun::self_rankings() const {
  const auto found = read_self_scores(out_->find("scores.safetensors"));
  std::vector<SelfRanking> out;
  for (const auto k : stages_) {
    const auto name = every_stage() ? "self." + chain_[k].name : std::string("self");
    const auto stage = std::find_if(found.stages.begin(), found.stages.end(), [&](auto& s) { return s.name == name; });
    SelfRanking ranking{k, {}, stage->scores.to(at::kDouble).contiguous()};
    ranking.rows.resize(static_cast<std::size_t>(ranking.scores.numel()));
    std::iota(ranking.rows.begin(), ranking.rows.end(), std::int64_t{0});
    const auto* score = ranking.scores.const_data_ptr<double>();
    std::stable_sort(ranking.rows.begin(), ranking.rows.end(), [&](auto a, auto b) { return score[a] < score[b]; });
    out.push_back(std::move(ranking));
  }
  return out;
}

namespace {

double score_of(const AttributionRun::SelfRanking& ranking, std::int64_t row) {
  return ranking.scores[row].item<double>();
}
/// What the model says of each example, as it stands at the stage's end; empty where tokens are predicted.
std::vector<std::string> predictions_of(const Stage& stage) {
  std::vector<std::string> out;
  if (stage.objective.data().targets().defined()) {
    for (const auto& said : predict(stage, stage.objective.data())) {
      out.push_back(said.predicted);
    }
  }
  return out;
}

double removal_of(const AttributionRun::SelfRanking& ranking, std::int64_t row) {
  return -score_of(ranking, row) / static_cast<double>(ranking.scores.numel());
}

}  // namespace

void write_self_ranking(const fs::path& path, const AttributionRun& run,
                        const std::vector<AttributionRun::SelfRanking>& rankings) {
  write_atomically(path, [&](std::ostream& out) {
    for (const auto& ranking : rankings) {
      const auto& stage = run.chain()[ranking.stage];
      const auto& data = stage.objective.data();
      const auto predictions = predictions_of(stage);
      for (const auto row : ranking.rows) {
        Json line{{"stage", stage.name}, {"example", data.ids()[row].item<std::int64_t>()}};
        if (run.predicts_removal()) {
          line["removal"] = removal_of(ranking, row);
        }
        line["score"] = score_of(ranking, row);
        if (const auto label = example_label(data, row); !label.empty()) {
          line["label"] = label;
        }
        if (!predictions.empty()) {
          line["prediction"] = predictions[static_cast<std::size_t>(row)];
        }
        line["origin"] = data.origin(row);
        out << json_text(line) << '\n';
      }
    }
  });
}

void print_self_ranking(const AttributionRun& run, const std::vector<AttributionRun::SelfRanking>& rankings,
                        std::int64_t top) {
  const bool removals = run.predicts_removal();
  for (const auto& ranking : rankings) {
    const auto& stage = run.chain()[ranking.stage];
    const auto& data = stage.objective.data();
    const auto predictions = predictions_of(stage);
    const auto source = source_text(data);
    say("{}: the examples that move their own loss most, of the {} {}{}\n", stage.name, data.size(),
        source.empty() ? "examples" : source, removals ? "; removal: how far it rises when one is left out" : "");
    std::size_t width = 10, wide = 5;
    const auto count = std::min(top, data.size());
    for (std::int64_t r = 0; r < count; ++r) {
      const auto row = ranking.rows[static_cast<std::size_t>(r)];
      width = std::max(width, short_origin_text(data, row).size());
      wide = std::max(wide, example_label(data, row).size());
      wide = std::max(wide, predictions.empty() ? 0 : predictions[static_cast<std::size_t>(row)].size());
    }
    const auto line = [&](const std::string& where, const std::string& label, const std::string& says,
                          const std::string& removal, const std::string& score) {
      std::string out = fmt::format("  {:>{}}", where, width);
      out +=
          predictions.empty() ? "" : fmt::format("  {:>{}}  {:>{}}", label, wide, says, std::max<std::size_t>(8, wide));
      out += removals ? fmt::format("  {:>9}", removal) : "";
      say("{}  {:>10}\n", out, score);
    };
    line("example", "label", "predicts", "removal", "score");
    for (std::int64_t r = 0; r < count; ++r) {
      const auto row = ranking.rows[static_cast<std::size_t>(r)];
      line(short_origin_text(data, row), example_label(data, row),
           predictions.empty() ? "" : predictions[static_cast<std::size_t>(row)],
           fmt::format("{:+.3g}", removal_of(ranking, row)), fmt::format("{:+.3g}", score_of(ranking, row)));
      if (data.is_text()) {
        say("      {}\n", Ready{shaded_text(visible_tokens(data, row, {}), 1)});
      }
    }
  }
}

}  // namespace whence::cli
