#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli.h"
#include "evaluate_table.h"
#include "json.h"
#include "leave_one_out.h"
#include "result.h"
#include "run_record.h"
#include "say.h"
#include "trainings.h"
#include "truth.h"
#include "verdict.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/output.h"
#include "whence/core/parallel.h"
#include "whence/core/seconds.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/retraining.h"
#include "whence/evaluate/statistics.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

/// "retraining: leave …; lds: …; with --methods also removal: …".
std::string against_help() {
  std::string of_results, of_methods;
  for (const auto& method : whence::methods<Truth>()) {
    auto& text = method.make("")->judges_results() ? of_results : of_methods;
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", method.name, method.summary);
  }
  return of_results + "; with --methods also " + of_methods;
}

std::string number_text(const Json& value) {
  return value.is_number() && std::isfinite(value.get<double>()) ? fmt::format("{:.4f}", value.get<double>())
                                                                 : "undefined";
}

/// Everything that both truths start from.
struct Setting {
  Trainings& trainings;
  at::Tensor scores;  ///< [Q, N] float64.
  Random random;      ///< Draws subsets.
  bool ceilinged;     ///< Another seed's are made too: at a minimum, found again from nearby, seeds make none.
  Progress progress;
  bool predicts_removal;
  bool asked;          ///< For so many trainings, however long they take.
  std::string remedy;  ///< What to type where they take long.
};

/// Retrains, with what each training took that the bank did not have.
std::pair<Retraining, double> timed_retrain(const Setting& at, const at::Tensor& weights) {
  const auto missing = at.trainings.missing(weights, 0);
  if (!at.asked && missing > 0) {
    check_patience(time_trainings(at.trainings, missing, at.progress), missing, at.remedy);
  }
  at.trainings.check_reference(at.progress);
  const auto made = std::max<std::int64_t>(1, missing);
  const auto start = Clock::now();
  auto truth = at.trainings.run(weights, 0, at.progress);
  return {std::move(truth), seconds_since(start) / static_cast<double>(made)};
}

Json convergence(const Retraining& truth) {
  return {{"largest-gradient-norm", truth.largest_gradient_norm}, {"unconverged-trainings", truth.unconverged}};
}

/// Leaves examples out one at a time, spread over the scores' range, and trains the rest of the chain again.
Json leave_one_out(const Setting& at, std::int64_t examples) {
  const auto& data = at.trainings.stage().objective.data();
  const auto rows = rows_across_scores(at.scores, examples);
  // the first training leaves nothing out: the measurements that the others are compared with, converged in the same
  // way
  const auto weights = at::cat({at::ones({1, data.size()}, at::kDouble), leave_one_out_weights(rows, data.size())});
  const auto [truth, seconds] = timed_retrain(at, weights);
  auto out = agreement_json(at.trainings.stage(), at.trainings.queries(), at.scores, rows, truth, at.predicts_removal,
                            seconds);
  out.update(at.trainings.told());
  out["reference-apart"] = at.trainings.apart(truth.measurements[0]);
  return out;
}

Json linear_datamodelling(const Setting& at, std::int64_t subsets, double fraction) {
  const auto n = at.trainings.stage().objective.data().size();
  const auto weights = subset_weights(subsets, n, fraction, at.random.stream("subsets"));
  const auto [truth, seconds] = timed_retrain(at, weights);
  const auto inside = weights.gt(0).to(at::kDouble);
  const auto predicted = summed_scores(at.scores, inside);
  const auto draws = at.random.stream("bootstrap");
  const auto chance = at.random.stream("random scores").normal(at.scores.sizes());
  Json out{{"against", "lds"},
           {"stage", at.trainings.stage().name},
           {"subsets", subsets},
           {"fraction", fraction},
           {"queries", at.scores.size(0)},
           {"lds", mean_over_queries(predicted, truth.measurements, spearman)},
           {"lds-interval-95", json_ends(agreement_interval(predicted, truth.measurements, spearman, draws))},
           {"lds-of-random-scores", mean_over_queries(summed_scores(chance, inside), truth.measurements, spearman)},
           {"seconds-a-training", seconds}};
  out.update(at.trainings.told());
  if (at.ceilinged) {
    const auto other = at.trainings.run(weights, 1, at.progress).measurements;
    out["ceiling"] = json_number(mean_over_queries(other, truth.measurements, spearman));
    const auto agreement = ceilinged_agreement(predicted, truth.measurements, other, spearman, draws);
    out["share-of-ceiling"] = json_number(agreement.share);
    out["share-interval-95"] = json_ends(agreement.share_interval);
  }
  out.update(convergence(truth));
  return out;
}

void print_evaluation(const Json& result) {
  if (result["against"] == "lds") {
    say("linear datamodelling score of {}: {:.4f} (random scores: {:.4f}), {} queries, {} subsets of {:g}\n",
        result["stage"].get<std::string>(), result["lds"].get<double>(), result["lds-of-random-scores"].get<double>(),
        result["queries"].get<std::int64_t>(), result["subsets"].get<std::int64_t>(), result["fraction"].get<double>());
    if (result.contains("ceiling")) {
      say("  the same trainings with another seed foretell it by {}{}\n", number_text(result["ceiling"]),
          result["share-of-ceiling"].is_null()
              ? ", which is not apart from 0"
              : fmt::format(": the score is {:.2f} of that", result["share-of-ceiling"].get<double>()));
    }
  } else {
    say("leave-one-out retraining of {}: {} examples x {} queries\n", result["stage"].get<std::string>(),
        result["examples"].get<std::int64_t>(), result["queries"].get<std::int64_t>());
    say("  Pearson {}, Spearman {}, slope {}; mean over queries: Pearson {}, Spearman {}\n",
        number_text(result["pearson"]), number_text(result["spearman"]), number_text(result["slope"]),
        number_text(result["mean-pearson-per-query"]), number_text(result["mean-spearman-per-query"]));
  }
  say("  {:.2g} s a training, the largest |gradient| at the end {:.1e}{}{}\n",
      result["seconds-a-training"].get<double>(), result["largest-gradient-norm"].get<double>(),
      result["train-from"] == "start" ? "; each from where the stage's own training began" : "",
      reference_text(result));
  say("{}\n", result["verdict"].get<std::string>());
}

/// What the trainings take, from one that leaves the first example out; cut off where that is long.
Json plan(const Setting& at, const std::string& against, std::int64_t trainings) {
  constexpr double kSeconds = 60;
  const auto one = at.trainings.time(trainings, kSeconds);
  std::int64_t examples = 0;
  auto stages = Json::array();
  for (auto k = at.trainings.stage_index(); k < at.trainings.chain().size(); ++k) {
    const auto& stage = at.trainings.chain()[k];
    stages.push_back(stage.name);
    examples += stage.objective.data().size();
  }
  const auto side_by_side = std::min<std::int64_t>(threads(), trainings);
  const double rounds = static_cast<double>(trainings) / static_cast<double>(side_by_side);
  return {{"against", against},
          {"trainings", trainings},
          {"stages", stages},
          {"examples-a-pass", examples},
          {"queries", at.trainings.queries().size()},
          {"seconds-a-training", one.seconds},
          {"side-by-side", side_by_side},
          {"seconds", {{"low", one.seconds * rounds}, {"high", one.at_most * rounds}}}};
}

void print_trainings(const Json& plan) {
  std::string stages;
  for (const auto& name : plan["stages"]) {
    stages += (stages.empty() ? "" : ", then ") + name.get<std::string>();
  }
  say("{} trainings of {}, {} at a time\n", plan["trainings"].get<std::int64_t>(), stages,
      plan["side-by-side"].get<std::int64_t>());
  const double low = plan["seconds"]["low"], high = plan["seconds"]["high"];
  const auto told = low == high        ? "about " + duration_words(low)
                    : std::isnan(high) ? "more than " + duration_words(low)
                                       : fmt::format("{} to {}", duration_words(low), duration_words(high));
  say("time    {}: one takes {}{}\n", told, low == high ? "" : "more than ",
      duration_words(plan["seconds-a-training"].get<double>()));
}

/// Throws where the folder holds another result.
void check_takes_evaluation(const ResultWriter& out, const Result& judged) {
  if (fs::exists(out.folder() / "run.json") && out.finished(judged.key(), {}) == nullptr) {
    throw InvalidArgument(fmt::format("{} holds another result than {}: choose another --out", out.folder().string(),
                                      judged.folder().string()));
  }
}

/// Of the flags that other truths look at, and of those that say what is scored where scores are there.
void note_unused_flags(const CommandLine& line, const Truth& truth) {
  const auto used = truth.flags();
  std::vector<std::string> unused;
  for (const auto& method : whence::methods<Truth>()) {
    for (const auto& flag : method.make("")->flags()) {
      if (std::find(used.begin(), used.end(), flag) == used.end()) {
        unused.push_back(flag);
      }
    }
  }
  std::sort(unused.begin(), unused.end());
  unused.erase(std::unique(unused.begin(), unused.end()), unused.end());
  line.note_unused(unused, fmt::format("--against {} goes without", line.text("against")));
  if (line.has("scores")) {
    line.note_unused({"queries", "limit-queries", "measurement"}, "the scores have their own");
    line.note_unused({"train-from"}, "with --scores trainings begin where the stage's did, or at its minimum");
    if (line.text("against") == "retraining") {
      line.note_unused({"no-ceiling"}, "with --scores lds alone has a ceiling");
    }
  }
}

/// Throws where the scores are not of this pipeline.
void check_is_pipeline_of(const JsonView& run, const fs::path& path) {
  const auto scored = run["pipeline"].get<std::string>();
  if (!fs::equivalent(path, scored)) {
    throw InvalidArgument(fmt::format(
        "the scores are of {}, and {} is another pipeline: evaluate the one that was scored", scored, path.string()));
  }
}

/// Beside the scores the evaluation becomes a part of their result, which takes its verdict.
void publish(ResultWriter& out, const Result& judged, const CommandLine& line, const Json& result) {
  const auto* held = out.finished(judged.key(), {});
  auto run = held != nullptr ? held->run().json() : Json{{"command", line.command()}, {"arguments", line.arguments()}};
  if (run.contains("verdict")) {
    const bool second = result["against"] == "lds" && held->has("evaluation.json");
    run["verdict"] =
        verdict_of_ranking(held->run(), second ? evaluation_of(*held) : JsonView(result, "evaluation"), out.folder())
            .text;
  }
  out.publish(judged.key(), std::move(run));
}

}  // namespace

int evaluate(const std::vector<std::string>& arguments) {
  CommandLine line("evaluate",
                   "PIPELINE (--scores DIR | --methods A,B) [--stage NAME] [--queries SPLIT] [--against "
                   "retraining|lds|…] [--out DIR] [--plan] [options]",
                   "Compares scores with what retraining the chain does, and says how well they agree; or makes the "
                   "scores of several methods and sets them in one table.");
  line.positional("PIPELINE", "the pipeline file");
  line.add()                                                                                                  //
      ("stage", po::value<std::string>(), "whose examples to leave out; default: the stage that was scored")  //
      ("scores", po::value<std::string>(), "the result directory of whence rank or score")                    //
      ("against", po::value<std::string>()->default_value("retraining"),
       against_help().c_str())  //
      ("examples", po::value<std::int64_t>()->default_value(20),
       "examples to leave out, spread over the scores' range")                                 //
      ("subsets", po::value<std::int64_t>()->default_value(100), "subsets to train on (lds)")  //
      ("fraction", po::value<double>()->default_value(0.5),
       "of the examples in a subset (lds), or with changed labels (mislabel, 0.1)")                     //
      ("plan", po::bool_switch(), "say how long it will take, from one training, then stop")            //
      ("optimizer", po::value<std::string>(), "train with this instead of each stage's own optimizer")  //
      ("out", po::value<std::string>(), "where evaluation.json and evaluation.svg go; default: the result directory");
  add_table_options(line);
  if (!line.parse(arguments)) {
    return kDone;
  }
  const auto against = line.text("against");
  const auto known = method_names<Truth>();
  if (std::find(known.begin(), known.end(), against) == known.end()) {
    throw UsageError(unknown_name("--against", against, known));
  }
  const auto examples = line.get<std::int64_t>("examples"), subsets = line.get<std::int64_t>("subsets");
  const auto fraction = line.get<double>("fraction");
  if (examples < 2 || subsets < 2) {
    throw UsageError(fmt::format("--{} = {}, expected >= 2: a correlation needs two points",
                                 examples < 2 ? "examples" : "subsets", std::min(examples, subsets)));
  }
  if (!(fraction > 0 && fraction < 1)) {
    throw UsageError(fmt::format("--fraction = {}, expected in (0, 1)", fraction));
  }
  const auto truth = create<Truth>(against);
  const bool scores_alone = truth->judges_results();
  note_unused_flags(line, *truth);
  if (!line.has("scores") && (line.has("methods") || line.has("queries") || !scores_alone)) {
    return evaluate_table(line);
  }
  if (line.has("scores") && (line.has("methods") || !scores_alone)) {
    throw UsageError(fmt::format("--scores are compared with retraining or lds alone: leave out {}",
                                 line.has("methods") ? "--methods" : "--scores, and name --methods"));
  }
  const fs::path folder = line.required("scores");
  const fs::path out = line.has("out") ? fs::path(line.text("out")) : folder;
  std::vector<std::string> names{against == "lds" ? "evaluation-lds.json" : "evaluation.json"};
  if (against == "retraining") {
    names.emplace_back("evaluation.svg");
  }
  std::optional<ResultWriter> writer;
  if (!line.flag("plan")) {
    writer.emplace(out, names);  // which finishes what was stopped there, before the result is read
  }
  const Result judged(folder);
  check_scored(judged);
  const auto& run = judged.run();
  if (is_self(run)) {
    throw InvalidArgument(fmt::format(
        "{} holds what --self made, and evaluate retrains for queries: score with --queries SPLIT instead of --self",
        folder.string()));
  }
  check_inputs_unchanged(run);
  auto options = line.run_options();
  if (!line.given("dtype")) {
    options.dtype = parse_dtype(run["options"]["dtype"].get<std::string>());
  }
  check_spares_inputs(run, out, names);
  if (writer) {
    check_takes_evaluation(*writer, judged);
  }
  const auto scores = read_scores(judged.file("scores.safetensors"));
  Pipeline pipeline(line.text("PIPELINE"), options);
  check_is_pipeline_of(run, pipeline.path());
  const bool changed = tell_changes(pipeline);
  const auto name = line.has("stage") ? line.text("stage") : run["options"]["stage"].get<std::string>();
  if (name == kEveryStage) {
    throw UsageError(fmt::format("the scores in {} are of every stage: say whose examples to leave out with --stage {}",
                                 folder.string(), pipeline.stages().front().name));
  }
  const auto stage = pipeline.stage_index(name);
  const auto chain = pipeline.load();
  auto queries = queries_of(pipeline, run);
  if (run["options"].value("queries-wrong", false)) {
    std::vector<std::int64_t> rows;
    for (std::int64_t q = 0; q < scores.query_ids.numel(); ++q) {
      rows.push_back(row_of(queries, scores.query_ids[q].item<std::int64_t>()));
    }
    queries = queries.take(at::tensor(rows, at::kLong));
  }
  const auto& held = scores_of(scores, run, name);
  if (!at::equal(held.example_ids, chain[stage].objective.data().ids()) ||
      !at::equal(scores.query_ids, queries.ids())) {
    throw DataError(fmt::format("{}: the scores are for other examples or queries than {} has", folder.string(),
                                line.text("PIPELINE")));
  }
  const auto optimizer = line.has("optimizer") ? line.text("optimizer") : std::string();
  const bool from_start = optimizer.empty() && judged_from_start(pipeline, chain, stage);
  const auto measurement = parse_measurement(run["options"]["measurement"].get<std::string>());
  Trainings trainings({pipeline, chain, stage, queries, measurement, optimizer, from_start, out / "bank"});
  const std::string count_flag = against == "lds" ? "subsets" : "examples";
  const Setting setting{
      trainings,
      held.scores.to(at::kDouble),
      Random(pipeline.seed()).stream("evaluate"),
      from_start && against == "lds" && !line.flag("no-ceiling"),
      terminal_progress(line.flag("quiet")),
      create<Attributor>(run["options"]["method"].get<std::string>())
          ->predicts_removal(parse_normalization(run["options"].value("normalize", "none"))),
      line.given(count_flag) || line.flag("plan"),
      fmt::format("to wait for them type --{} {}, or fewer{}", count_flag, against == "lds" ? subsets : examples,
                  trainings.untold().empty() ? "" : "; " + say_optimizer_text(trainings.untold()))};
  if (line.flag("plan")) {
    const auto count = against == "lds" ? subsets * (setting.ceilinged ? 2 : 1)
                                        : std::min(examples, trainings.stage().objective.data().size()) + 1;
    const auto told = plan(setting, against, count);
    if (line.flag("json")) {
      say("{}\n", Ready{json_text(told, 2)});
    } else {
      print_trainings(told);
    }
    return kDone;
  }
  make_folder(out);  // before any training
  auto result = against == "lds" ? linear_datamodelling(setting, subsets, fraction) : leave_one_out(setting, examples);
  end_progress();
  result["verdict"] = verdict_of_evaluation({result, names.front()}).text;
  result["key"] = judged.key();
  write_text(writer->place(names.front()), json_text(result, 2) + "\n");
  if (against == "retraining") {
    write_text(writer->place("evaluation.svg"), scatter_svg(leave_one_out_plot({result, names.front()})));
  }
  publish(*writer, judged, line, result);
  if (line.flag("json")) {
    say("{}\n", Ready{json_text(result, 2)});
  } else {
    print_evaluation(result);
  }
  if (result["unconverged-trainings"].get<std::int64_t>() > 0 && !result.contains("goes-on-by")) {
    warn(fmt::format("{} trainings stopped before their tolerance: the truth carries their error",
                     result["unconverged-trainings"].get<std::int64_t>()));
    return line.flag("strict") ? kStrict : kDone;
  }
  return changed && line.flag("strict") ? kStrict : kDone;
}

}  // namespace whence::cli
