// `whence rank` and `whence score`: the same scores; rank also shows the strongest examples.
#include <fmt/format.h>

#include <optional>

#include "attribution_options.h"
#include "attribution_run.h"
#include "plan.h"
#include "ranking_text.h"
#include "say.h"
#include "score_tables.h"
#include "self_influence.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/output.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

int show_plan(const CommandLine& line) {
  const auto plan = AttributionRun(line).plan();
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(plan, 2)});
  } else if (plan.contains("self-influence")) {
    for (const auto& [stage, way] : plan["self-influence"].items()) {
      say("self-influence of {}: {}\n", stage, way.get<std::string>());
    }
  } else {
    print_plan(plan);
  }
  return kDone;
}

/// Throws UsageError where nothing can be retrained for.
std::optional<SpotCheck> spot_check_of(const CommandLine& line) {
  if (!line.has("spot-check")) {
    if (line.given("spot-check-minutes")) {
      throw UsageError("--spot-check-minutes is of --spot-check N: say how many examples");
    }
    return std::nullopt;
  }
  const SpotCheck out{line.whole("spot-check", 2), 60 * line.get<double>("spot-check-minutes")};
  if (!(out.seconds > 0) || !(out.seconds < 1e9)) {
    throw UsageError(fmt::format("--spot-check-minutes = {}, expected > 0", out.seconds / 60));
  }
  if (line.flag("self")) {
    throw UsageError("--spot-check retrains for queries, and --self has none: leave one of them out");
  }
  if (line.has("stage") && line.text("stage") == kEveryStage) {
    throw UsageError("--spot-check leaves out examples of one stage: name it in place of --stage all");
  }
  return out;
}

}  // namespace

int score(const std::vector<std::string>& arguments) {
  CommandLine line("score", "PIPELINE [--stage NAME|all] [--queries SPLIT | --self] --out DIR [options]",
                   "Scores every example of a stage against every query into DIR/scores.safetensors. An interrupted "
                   "run goes on where it stopped.");
  add_attribution_options(line);
  if (!parse_with_earlier(line, arguments)) {
    return kDone;
  }
  if (line.flag("plan")) {
    return show_plan(line);
  }
  const fs::path folder = line.required("out");
  const auto formats = parse_formats(line.text("format"));
  AttributionRun run(line);
  if (run.self()) {
    run.run_self(folder);
  } else {
    run.run(folder);
  }
  write_score_tables(run, formats);
  run.publish();
  if (line.flag("json")) {
    say("{}", Ready{read_text(folder / "run.json")});
  } else {
    say("{}: {}{}\n", (folder / "scores.safetensors").string(),
        run.self() ? "each example for its own loss" : fmt::format("{} queries", run.queries().size()),
        run.reused() ? ", already complete" : "");
    print_evidence(run.record().view());
  }
  return run.record().exit_status(line.flag("strict"));
}

int rank(const std::vector<std::string>& arguments) {
  CommandLine line(
      "rank", "PIPELINE [--stage NAME|all] [--queries SPLIT | --self] [--top K] [--out DIR] [options]",
      "Scores a stage's examples, then shows the strongest for each query, and saves them with the scores in DIR.");
  add_attribution_options(line);
  line.add()("top", po::value<std::int64_t>()->default_value(5), "proponents and opponents to show of each query")  //
      ("spot-check", po::value<std::int64_t>(),
       "retrain without so many examples, spread across the scores, and say how well what was predicted agrees; "
       "from 9 on each removal gets a 90 % interval")  //
      ("spot-check-minutes", po::value<double>()->default_value(10),
       "after which no further retraining of --spot-check begins");
  if (!parse_with_earlier(line, arguments)) {
    return kDone;
  }
  const auto top = line.get<std::int64_t>("top");
  if (top < 1) {
    throw UsageError(fmt::format("--top = {}, expected >= 1", top));
  }
  if (line.flag("plan")) {
    return show_plan(line);
  }
  const auto asked = spot_check_of(line);
  const auto formats = parse_formats(line.text("format"));
  if (line.given("format") && !line.has("out")) {
    throw UsageError("--format is of the files in a result directory: say where with --out DIR");
  }
  std::optional<TemporaryFolder> temporary;
  const fs::path folder = line.has("out") ? fs::path(line.text("out")) : temporary.emplace().path();
  AttributionRun run(line);
  std::vector<Ranking> rankings;
  std::vector<AttributionRun::SelfRanking> self_rankings;
  bool checked = true;
  if (run.self()) {
    run.run_self(folder);
    self_rankings = run.self_rankings();
    write_self_ranking(run.out().place("ranking.jsonl"), run, self_rankings);
  } else {
    run.run(folder, top);
    checked = !asked || run.spot_check(*asked);
    rankings = run.rankings(top);
    write_rankings(run.out().place("ranking.jsonl"), rankings);
    write_ranking_tables(run, rankings, formats);
  }
  write_score_tables(run, formats);
  run.publish();
  if (line.flag("json")) {
    say("{}", Ready{read_text(folder / "ranking.jsonl")});
  } else {
    run.self() ? print_self_ranking(run, self_rankings, top) : print_table(run, rankings);
    print_evidence(run.record().view());
  }
  return !checked && line.flag("strict") ? kStrict : run.record().exit_status(line.flag("strict"));
}

}  // namespace whence::cli
