#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cli.h"
#include "result.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/evaluate/retraining.h"
#include "whence/evaluate/statistics.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

std::vector<double> numbers(const at::Tensor& x) {
  const auto flat = x.to(at::kDouble).contiguous().flatten();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// Everything that both truths start from.
struct Setting {
  Pipeline pipeline;
  Chain chain;
  std::size_t stage;
  Dataset queries;
  Measurement measurement;
  at::Tensor scores;  ///< [Q, N] float64.
  std::unique_ptr<Optimizer> optimizer;
  Random random;
  Progress progress;
};

nlohmann::ordered_json convergence(const Retraining& truth) {
  return {{"largest-gradient-norm", truth.largest_gradient_norm}, {"unconverged-trainings", truth.unconverged}};
}

/// Leaves examples out one at a time, spread over the scores' range, and trains the rest of the chain again.
nlohmann::ordered_json leave_one_out(const Setting& at, std::int64_t examples) {
  const auto& data = at.chain[at.stage].objective.data();
  const auto rows = rows_across_scores(at.scores, examples);
  // the first training leaves nothing out: the measurements that the others are compared with, converged in the same
  // way
  const auto weights = at::cat({at::ones({1, data.size()}, at::kDouble), leave_one_out_weights(rows, data.size())});
  const auto truth =
      retrain(at.chain, at.stage, weights, at.queries, at.measurement, at.optimizer.get(), at.random, at.progress);
  const auto actual =
      (truth.measurements.narrow(0, 1, rows.size(0)) - truth.measurements[0]).t().contiguous();  // [Q, E]
  const auto predicted = (at.scores.index_select(1, rows) / -static_cast<double>(data.size())).contiguous();
  const auto x = numbers(predicted), y = numbers(actual);
  auto random = at.random.stream("bootstrap");
  const auto interval = bootstrap(x, y, pearson, random);
  const auto line = least_squares(x, y);
  double mean_pearson = 0, mean_spearman = 0;
  for (std::int64_t q = 0; q < predicted.size(0); ++q) {
    mean_pearson += pearson(numbers(predicted[q]), numbers(actual[q])) / static_cast<double>(predicted.size(0));
    mean_spearman += spearman(numbers(predicted[q]), numbers(actual[q])) / static_cast<double>(predicted.size(0));
  }
  nlohmann::ordered_json out{{"against", "retraining"},
                             {"stage", at.chain[at.stage].name},
                             {"examples", rows.size(0)},
                             {"queries", predicted.size(0)},
                             {"pearson", pearson(x, y)},
                             {"pearson-interval-95", {interval.low, interval.high}},
                             {"spearman", spearman(x, y)},
                             {"slope", line.slope},
                             {"intercept", line.intercept},
                             {"mean-pearson-per-query", mean_pearson},
                             {"mean-spearman-per-query", mean_spearman}};
  out.update(convergence(truth));
  auto points = nlohmann::ordered_json::array();
  for (std::int64_t q = 0; q < predicted.size(0); ++q) {
    for (std::int64_t e = 0; e < predicted.size(1); ++e) {
      points.push_back({{"query", at.queries.ids()[q].item<std::int64_t>()},
                        {"example", data.ids()[rows[e].item<std::int64_t>()].item<std::int64_t>()},
                        {"predicted", predicted[q][e].item<double>()},
                        {"actual", actual[q][e].item<double>()}});
    }
  }
  out["points"] = std::move(points);
  return out;
}

/// Mean over queries of the Spearman correlation of summed scores with the measurements. Park et al., "TRAK", ICML
/// 2023, definition 2.4.
double linear_datamodelling_score(const at::Tensor& scores, const at::Tensor& inside, const at::Tensor& measured) {
  const auto sums = inside.matmul(scores.t());  // [M, Q]
  double total = 0;
  for (std::int64_t q = 0; q < scores.size(0); ++q) {
    total += spearman(numbers(sums.select(1, q)), numbers(measured.select(1, q)));
  }
  return total / static_cast<double>(scores.size(0));
}

nlohmann::ordered_json linear_datamodelling(const Setting& at, std::int64_t subsets, double fraction) {
  const auto n = at.chain[at.stage].objective.data().size();
  const auto weights = subset_weights(subsets, n, fraction, at.random.stream("subsets"));
  const auto truth =
      retrain(at.chain, at.stage, weights, at.queries, at.measurement, at.optimizer.get(), at.random, at.progress);
  const auto inside = weights.gt(0).to(at::kDouble);
  const auto chance = at.random.stream("random scores").normal(at.scores.sizes());
  nlohmann::ordered_json out{{"against", "lds"},
                             {"stage", at.chain[at.stage].name},
                             {"subsets", subsets},
                             {"fraction", fraction},
                             {"queries", at.scores.size(0)},
                             {"lds", linear_datamodelling_score(at.scores, inside, truth.measurements)},
                             {"lds-of-random-scores", linear_datamodelling_score(chance, inside, truth.measurements)}};
  out.update(convergence(truth));
  return out;
}

void print(const nlohmann::ordered_json& result) {
  if (result["against"] == "lds") {
    fmt::print("linear datamodelling score of {}: {:.4f} (random scores: {:.4f}), {} queries, {} subsets of {:g}\n",
               result["stage"].get<std::string>(), result["lds"].get<double>(),
               result["lds-of-random-scores"].get<double>(), result["queries"].get<std::int64_t>(),
               result["subsets"].get<std::int64_t>(), result["fraction"].get<double>());
  } else {
    fmt::print("leave-one-out retraining of {}: {} examples x {} queries\n", result["stage"].get<std::string>(),
               result["examples"].get<std::int64_t>(), result["queries"].get<std::int64_t>());
    fmt::print(
        "  Pearson {:.4f} (95 % {:.4f} to {:.4f}), Spearman {:.4f}, slope {:.3f}; mean over queries: Pearson {:.4f}, "
        "Spearman {:.4f}\n",
        result["pearson"].get<double>(), result["pearson-interval-95"][0].get<double>(),
        result["pearson-interval-95"][1].get<double>(), result["spearman"].get<double>(), result["slope"].get<double>(),
        result["mean-pearson-per-query"].get<double>(), result["mean-spearman-per-query"].get<double>());
  }
  fmt::print("  retraining: largest |gradient| at the end {:.1e}\n", result["largest-gradient-norm"].get<double>());
}

}  // namespace

int evaluate(const std::vector<std::string>& arguments) {
  CommandLine line("evaluate", "PIPELINE --stage NAME --scores DIR --against retraining|lds [options]",
                   "Compares scores with what retraining the chain does, and says how well they agree.");
  line.positional("PIPELINE", "the pipeline file");
  line.add()                                                                                //
      ("stage", po::value<std::string>(), "whose examples were scored")                     //
      ("scores", po::value<std::string>(), "the result directory of whence rank or score")  //
      ("against", po::value<std::string>()->default_value("retraining"),
       "retraining: leave examples out one at a time; lds: train on random subsets")  //
      ("examples", po::value<std::int64_t>()->default_value(20),
       "examples to leave out, spread over the scores' range")                                          //
      ("subsets", po::value<std::int64_t>()->default_value(100), "subsets to train on (lds)")           //
      ("fraction", po::value<double>()->default_value(0.5), "of the examples in a subset (lds)")        //
      ("optimizer", po::value<std::string>(), "train with this instead of each stage's own optimizer")  //
      ("out", po::value<std::string>(), "where evaluation.json and evaluation.svg go; default: the result directory");
  if (!line.parse(arguments)) {
    return kDone;
  }
  const auto against = line.text("against");
  if (against != "retraining" && against != "lds") {
    throw UsageError(unknown_name("--against", against, {"retraining", "lds"}));
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
  const fs::path folder = line.required("scores");
  const auto run = read_run(folder);
  check_inputs_unchanged(run);
  auto options = line.run_options();
  if (!line.given("dtype")) {
    options.dtype = parse_dtype(run["options"]["dtype"]);
  }
  const auto scores = read_scores(folder);
  Pipeline pipeline(line.text("PIPELINE"), options);
  const auto stage = pipeline.stage_index(line.required("stage"));
  auto chain = pipeline.load();
  auto queries = pipeline.queries(run["options"]["queries"], run["options"]["limit-queries"]);
  const auto& held = scores_of(scores, run, line.text("stage"));
  if (!at::equal(held.example_ids, chain[stage].objective.data().ids()) ||
      !at::equal(scores.query_ids, queries.ids())) {
    throw DataError(fmt::format("{}: the scores are for other examples or queries than {} has", folder.string(),
                                line.text("PIPELINE")));
  }
  const Setting setting{pipeline,
                        std::move(chain),
                        stage,
                        std::move(queries),
                        parse_measurement(run["options"]["measurement"].get<std::string>()),
                        held.scores.to(at::kDouble),
                        line.has("optimizer") ? create<Optimizer>(line.text("optimizer")) : nullptr,
                        Random(pipeline.seed()).stream("evaluate"),
                        terminal_progress(line.flag("quiet"))};
  const auto result =
      against == "lds" ? linear_datamodelling(setting, subsets, fraction) : leave_one_out(setting, examples);
  end_progress();
  const fs::path out = line.has("out") ? fs::path(line.text("out")) : folder;
  fs::create_directories(out);
  const auto name = against == "lds" ? "evaluation-lds" : "evaluation";
  write_text(out / fmt::format("{}.json", name), result.dump(2) + "\n");
  if (against == "retraining") {
    write_text(out / "evaluation.svg", scatter_svg(leave_one_out_plot(result)));
  }
  if (line.flag("json")) {
    fmt::print("{}\n", result.dump(2));
  } else {
    print(result);
  }
  if (result["unconverged-trainings"].get<std::int64_t>() > 0) {
    warn(fmt::format("{} trainings stopped before their tolerance: the truth carries their error",
                     result["unconverged-trainings"].get<std::int64_t>()));
    return line.flag("strict") ? kStrict : kDone;
  }
  return kDone;
}

}  // namespace whence::cli
