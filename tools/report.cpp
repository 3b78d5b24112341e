#include <ATen/ATen.h>
#include <fmt/format.h>

#include <iterator>
#include <set>

#include "cli.h"
#include "comparison_verdict.h"
#include "icl_result.h"
#include "json.h"
#include "kernel_result.h"
#include "leave_one_out.h"
#include "report_cards.h"
#include "report_join.h"
#include "result.h"
#include "run_record.h"
#include "say.h"
#include "solves_text.h"
#include "spectrum.h"
#include "truth.h"
#include "verdict.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/output.h"
#include "whence/report/html.h"
#include "whence/store/ranking.h"
#include "whence/store/score_store.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

Fact fact(const std::string& name, const std::string& value, bool good, const std::string& note = {}) {
  return {name, value, good ? Fact::State::kGood : Fact::State::kWarning, note};
}

/// How a training that was gone again ended, and what became of derivatives on the way back.
std::string unrolled_text(const JsonView& told) {
  const auto difference = told["replay-difference"].get<double>();
  return fmt::format(
      "{} steps, to {}; derivatives grew up to {:.3g}-fold on the way back", told["steps"].get<std::int64_t>(),
      difference == 0 ? std::string("the same bits") : fmt::format("{:.1e} of the checkpoint", difference),
      told["adjoint-growth"].get<double>());
}

std::vector<Fact> evidence(const JsonView& run) {
  const auto options = run["options"];
  std::vector<Fact> out;
  const auto spec = [&]<class Base>(const char* key, const Base*) {
    if (options.contains(key)) {
      out.push_back({key, brief_spec<Base>(options[key].get<std::string>())});
    }
  };
  spec("method", static_cast<const Attributor*>(nullptr));
  spec("curvature", static_cast<const Curvature*>(nullptr));
  spec("solver", static_cast<const Solver*>(nullptr));
  for (const auto& [key, otherwise] : {std::pair<const char*, Json>("response", "stationary"),
                                       {"inversion", "damped"},
                                       {"damping", 0},
                                       {"relative-damping", 0},
                                       {"normalize", "none"},
                                       {"measurement", "loss"},
                                       {"dtype", "float32"}}) {
    if (options.contains(key) && options[key].json() != otherwise) {  // a default is not worth a line
      out.push_back({key, options[key].is_string() ? options[key].get<std::string>() : options[key].dump()});
    }
  }
  if (run.contains("chosen")) {
    out.push_back({"chosen", run["chosen"]["reason"].get<std::string>()});
  }
  for (const auto& [name, stage] : run["stages"].items()) {
    if (stage.contains("gradient-norm")) {  // methods without curvature assume no minimum
      const auto relative = stage["relative-gradient-norm"].get<double>();
      out.push_back(fact("gradient at " + name,
                         fmt::format("{:.1e}, {:.1e} of an example's", stage["gradient-norm"].get<double>(), relative),
                         relative <= kFarFromMinimum));
    }
    if (stage.contains("unrolled")) {
      out.push_back({"training of " + name + " gone again", unrolled_text(stage["unrolled"])});
    }
    if (stage.contains("solves")) {
      const auto unconverged = stage["unconverged-solves"].get<std::int64_t>();
      if (stage["approximate-solves"].get<std::int64_t>() > 0) {  // by choice: neither good nor bad
        out.push_back({"solves at " + name, solves_text(stage)});
      } else {
        out.push_back(fact("solves at " + name, solves_text(stage), unconverged == 0));
      }
    }
    if (stage.contains("damping")) {
      out.push_back({"damping at " + name, fmt::format("{:.3g}", stage["damping"].get<double>())});
    }
  }
  return out;
}

Fact::State state_of(const Verdict& verdict) {
  switch (verdict.level) {
    case Verdict::Level::kTrusted:
      return Fact::State::kGood;
    case Verdict::Level::kNot:
      return Fact::State::kBad;
    default:
      return Fact::State::kWarning;
  }
}

Fact verdict_fact(const Verdict& verdict) { return {"verdict", verdict.text, state_of(verdict)}; }

EvaluationSection leave_one_out_section(const JsonView& result) {
  return {"Agreement with leave-one-out retraining",
          leave_one_out_plot(result),
          {verdict_fact(verdict_of_evaluation(result)),
           {"Spearman", fmt::format("{:.4f}", number_of(result, "spearman"))},
           {"pairs",
            fmt::format("{} examples x {} queries", result["examples"].get<int>(), result["queries"].get<int>())}}};
}

EvaluationSection lds_section(const JsonView& result) {
  return {"Linear datamodelling score",
          {},
          {verdict_fact(verdict_of_evaluation(result)),
           {"LDS of random scores", fmt::format("{:.4f}", number_of(result, "lds-of-random-scores"))},
           {"subsets", fmt::format("{} of {:g} of the examples", result["subsets"].get<int>(),
                                   result["fraction"].get<double>())}}};
}

/// Of each scored stage in what moves the query: the sum of its removals' sizes. Empty where one stage was scored.
std::vector<double> stage_shares(const Scores& scores, const QueryCard& card, const JsonView& run) {
  const auto row = query_row(scores, card.id);
  std::vector<double> out;
  double whole = 0;
  if (card.stages.size() < 2 || row < 0) {
    return out;
  }
  for (const auto& lists : card.stages) {
    out.push_back(scores_of(scores, run, lists.stage).scores[row].to(at::kDouble).abs().mean().item<double>());
    whole += out.back();
  }
  for (auto& share : out) {
    share /= whole > 0 ? whole : 1;
  }
  return out;
}

/// What a page shows of a ranking or of --self. Warns of what has changed since.
Page scored_page(const Result& result, const CommandLine& line) {
  const auto& run = result.run();
  const auto& folder = result.folder();
  check_scored(result);
  if (!result.has("ranking.jsonl")) {
    throw DataError(
        fmt::format("{} holds no ranking.jsonl: make it with whence rank --out {}", folder.string(), folder.string()));
  }
  check_inputs_unchanged(run);
  auto options = line.run_options();
  options.seed = run["seed"].get<std::uint64_t>();
  const Pipeline pipeline(run["pipeline"].get<std::string>(), options);
  tell_changes(pipeline);
  const auto stage = run["options"]["stage"].get<std::string>();
  const auto whose = fmt::format("{}: examples of {}", pipeline.path().filename().string(),
                                 stage == kEveryStage ? "every stage" : "stage " + stage);
  Page page;
  page.evidence = evidence(run);
  if (is_self(run)) {
    page.title = "Which examples stand alone";
    page.subtitle = whose + " whose own loss leaving them out would raise most: mislabelled, or rare";
    page.suspects = suspect_lists(pipeline, run, result.file("ranking.jsonl"));
  } else {
    auto rankings = read_rankings(result.file("ranking.jsonl"));
    std::set<std::int64_t> queries;
    for (const auto& ranking : rankings) {
      queries.insert(ranking.query);
    }
    page.title = fmt::format("Where the predictions on “{}” come from", run["options"]["queries"].get<std::string>());
    page.subtitle = fmt::format("{} behind {} queries", whose, queries.size());
    const auto scores = read_scores(result.file("scores.safetensors"));
    // as the evaluation supports them today, which may be younger than the ranking
    const auto supported = cli::add_intervals(rankings, evaluation_of(result), scores, run);
    page.evidence.push_back({"intervals", confidence_text(supported, run)});
    page.queries = query_cards(pipeline, run, rankings);
    for (auto& card : page.queries) {
      card.shares = stage_shares(scores, card, run);
    }
  }
  const auto measurement = parse_measurement(run["options"]["measurement"].get<std::string>());
  const auto words = side_words(measurement);
  page.words = {std::string(to_string(measurement)), outcome_sign(measurement), std::string(words.first),
                std::string(words.second)};
  page.verdict = verdict_fact(verdict_of_ranking(run, evaluation_of(result), folder));
  for (const auto& evaluation : evaluations_of(result)) {
    page.evaluations.push_back(evaluation["against"] == "lds" ? lds_section(evaluation)
                                                              : leave_one_out_section(evaluation));
  }
  page.warnings = run["warnings"].get<std::vector<std::string>>();
  return page;
}

/// The curvature's eigenvalues of each stage that was solved at, estimated anew.
std::vector<EvaluationSection> spectra(const Result& result, const CommandLine& line) {
  const auto& run = result.run();
  if (!run.contains("stages") || !run["options"].contains("curvature")) {
    throw UsageError(fmt::format("--spectrum: {} was scored by no curvature: leave it out", result.folder().string()));
  }
  constexpr std::int64_t kProbes = 4, kSteps = 60;
  auto options = line.run_options();
  options.seed = run["seed"].get<std::uint64_t>();
  options.dtype = parse_dtype(run["options"]["dtype"].get<std::string>());
  const Pipeline pipeline(run["pipeline"].get<std::string>(), options);
  const auto chain = pipeline.load();
  std::vector<EvaluationSection> out;
  for (const auto& stage : chain) {
    const auto stages = run["stages"];
    if (stages.contains(stage.name) && stages[stage.name].contains("gradient-norm")) {
      out.push_back(spectrum_section(
          spectrum_of(stage, run["options"]["curvature"].get<std::string>(), kProbes, kSteps,
                      Random(pipeline.seed()).stream("spectrum"), terminal_progress(line.flag("quiet"))),
          number_of(stages[stage.name], "damping", 0)));
    }
  }
  return out;
}

/// What a page shows of a table of methods.
Page comparison_page(const Result& result, const Json& table) {
  const auto truth = create<Truth>(table["against"].get<std::string>());
  Page page;
  page.title = "Which method is right here";
  page.subtitle = fmt::format("{}: examples of stage {}, {} queries of “{}”, against {}",
                              fs::path(result.run()["pipeline"].get<std::string>()).filename().string(),
                              table["stage"].get<std::string>(), table["queries"].get<std::int64_t>(),
                              table["split"].get<std::string>(), table["against"].get<std::string>());
  page.verdict = verdict_fact(verdict_of_comparison(table, *truth));
  page.shown.push_back(comparison_section(table, *truth));
  if (result.run().contains("warnings")) {
    page.warnings = result.run()["warnings"].get<std::vector<std::string>>();
  }
  page.footer = "Made by whence. Methods' scores beside what training again shows.";
  return page;
}

/// What a page shows of any result.
Page page_of(const Result& result, const CommandLine& line) {
  const auto command = result.run().value("command", "");
  if (command == "icl") {
    if (!result.has("icl.json")) {
      throw InvalidArgument(fmt::format("{} holds many tasks: report one of its folders", result.folder().string()));
    }
    return icl_page(JsonView::read(result.file("icl.json")));
  }
  if (command == "kernel") {
    return kernel_page(JsonView::read(result.file("kernel.json")));
  }
  if (command == "evaluate" && result.has("evaluation.json")) {
    if (const auto table = read_json<Json>(result.file("evaluation.json")); table.contains("table")) {
      return comparison_page(result, table);
    }
  }
  auto page = scored_page(result, line);
  if (line.flag("spectrum")) {
    auto more = spectra(result, line);
    std::move(more.begin(), more.end(), std::back_inserter(page.evaluations));
  }
  return page;
}

/// One page of several results, for which of their queries are the same.
Page joint_page(const std::vector<Result>& results, const CommandLine& line) {
  std::vector<JoinedResult> joined;
  for (const auto& result : results) {
    const auto folder = result.folder().string();
    auto page = page_of(result, line);
    const auto command = result.run().value("command", "");
    if (command == "icl") {
      page.queries = icl_cards(JsonView::read(result.file("icl.json")));
      page.words = {"log-probability", 1, "helpful", "harmful"};
    } else if (command == "kernel") {
      page.subtitle = fmt::format("{}, {}", folder, page.subtitle);
    } else {
      const auto options = result.run()["options"];
      const auto stage = options["stage"].get<std::string>();
      page.title = fmt::format("{}: examples of {}, by {}", folder, stage == kEveryStage ? "every stage" : stage,
                               brief_spec<Attributor>(options["method"].get<std::string>()));
    }
    joined.push_back({folder, std::move(page), result.run().value("pipeline", ""), command == "kernel"});
  }
  return join(std::move(joined));
}

}  // namespace

int report(const std::vector<std::string>& arguments) {
  CommandLine line("report", "DIR [DIR …] [--out FILE.html]",
                   "Makes one self-contained HTML page of what whence rank and evaluate, icl or kernel left in DIR; of "
                   "several results one page, where they are of the same queries: what a prompt's demonstrations, a "
                   "fine-tune's examples and a pretraining's texts did to one answer.");
  line.positionals("DIR", "a result directory, or several");
  line.add()("out", po::value<std::string>(), "the page; default: DIR/report.html; of several results it is needed")  //
      ("spectrum", po::bool_switch(),
       "estimate the eigenvalues of the curvature that was solved with, at each stage, 240 products each, and plot "
       "them");
  if (!line.parse(arguments)) {
    return kDone;
  }
  const auto folders = line.get<std::vector<std::string>>("DIR");
  const fs::path folder = folders.front();
  if (folders.size() > 1 && !line.has("out")) {
    throw UsageError("--out is missing: where one page of several results is to lie: --out page.html");
  }
  const fs::path out = line.has("out") ? fs::path(line.text("out")) : folder / "report.html";
  const auto lock =
      line.has("out") ? OutputLock::beside(out) : OutputLock();  // what cannot be written is found before work
  std::optional<ResultWriter> writer;
  if (!line.has("out") && is_result(folder)) {  // the page lies beside what it is of and is a part of it
    writer.emplace(folder, std::vector<std::string>{"report.html"});
  }
  const std::vector<Result> results(folders.begin(), folders.end());
  if (!writer) {
    for (const auto& result : results) {
      check_spares_inputs(result.run(), {out});
    }
    check_replaceable(out, kPageBeginning);
  }
  auto page = results.size() > 1 ? joint_page(results, line) : page_of(results.front(), line);
  cut_queries(page);
  write_text(writer ? writer->place("report.html") : out, render_page(page));
  if (writer) {
    writer->publish(results.front().key(), results.front().run().json());
  }
  say("{}\n", line.flag("json") ? json_text(Json{{"report", out.string()}}) : out.string());
  return kDone;
}

}  // namespace whence::cli
