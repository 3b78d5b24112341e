// `whence rank` and `whence score`: the same scores; rank also shows the strongest examples.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "cli.h"
#include "plan.h"
#include "result.h"
#include "run_record.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/store/ranking.h"
#include "whence/store/score_store.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

void add_attribution_options(CommandLine& line) {
  line.positional("PIPELINE", "the pipeline file", false);
  line.add()                                                                                               //
      ("stage", po::value<std::string>(), "whose examples to score; all: every stage's, in one sweep")     //
      ("queries", po::value<std::string>(), "the split [queries.SPLIT] of the pipeline to explain")        //
      ("limit-queries", po::value<std::int64_t>()->default_value(0), "the first so many queries; 0: all")  //
      ("out", po::value<std::string>(), "the result directory")                                            //
      ("measurement", po::value<std::string>()->default_value("loss"),
       "loss, log-probability, logit or margin of the query")                                           //
      ("method", po::value<std::string>()->default_value("influence"), "`whence methods attribution`")  //
      ("curvature", po::value<std::string>()->default_value("hessian"), "`whence methods curvature`")   //
      ("solver", po::value<std::string>()->default_value("cg"), "`whence methods solvers`")             //
      ("response", po::value<std::string>()->default_value("stationary"),
       "stationary: every stage is at its minimum; proximal-bregman: it need not be, with a Gauss-Newton curvature; "
       "segment[:time=X,steps=N]: training stopped early, by its snapshots or by the sum of its learning rates")  //
      ("inversion", po::value<std::string>()->default_value("damped"),
       "damped 1/(h+damping), filtered h/(h^2+damping^2) or pseudo")                                    //
      ("damping", po::value<double>()->default_value(0), "absolute")                                    //
      ("relative-damping", po::value<double>(), "times the mean eigenvalue of each stage's curvature")  //
      ("normalize", po::value<std::string>()->default_value("none"),
       "divide scores by lengths: none, cosine (the query's and the example's) or relatif (the example's)")  //
      ("plan", po::bool_switch(), "say what it will take and which parameters count, then stop")             //
      ("query-block", po::value<std::int64_t>()->default_value(32),
       "queries solved for together; changes memory, not results")  //
      ("from", po::value<std::string>(), "take every argument that is not given here from this run.json");
}

/// The arguments behind those of an earlier run; what is given here comes first and so wins.
std::vector<std::string> with_earlier(const std::vector<std::string>& arguments) {
  const auto found = std::find_if(arguments.begin(), arguments.end(),
                                  [](const auto& a) { return a == "--from" || a.starts_with("--from="); });
  if (found == arguments.end()) {
    return arguments;
  }
  const bool joined = *found != "--from";
  if (!joined && found + 1 == arguments.end()) {
    throw UsageError("--from: the file is missing");
  }
  const std::string file = joined ? found->substr(7) : *(found + 1);
  nlohmann::json run;
  try {
    run = nlohmann::json::parse(read_text(file));
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("{}: not a run.json ({})", file, error.what()));
  }
  if (!run.contains("arguments") || !run.contains("pipeline")) {
    throw DataError(fmt::format("{}: not a run.json of whence rank or score: no arguments", file));
  }
  std::vector<std::string> given(arguments.begin(), found);
  given.insert(given.end(), found + (joined ? 1 : 2), arguments.end());
  const auto flag_of = [](const std::string& a) {
    return a.starts_with("--") ? a.substr(0, a.find('=')) : std::string();
  };
  std::vector<std::string> out = given;
  const bool has_pipeline = !given.empty() && !given[0].starts_with("-");
  const auto earlier = run["arguments"].get<std::vector<std::string>>();
  for (std::size_t i = 0; i < earlier.size(); ++i) {
    const auto flag = flag_of(earlier[i]);
    const bool takes_value = !flag.empty() && earlier[i].find('=') == std::string::npos && i + 1 < earlier.size() &&
                             !earlier[i + 1].starts_with("--");
    if (flag.empty()) {
      continue;  // the pipeline, whose absolute path run.json holds
    }
    if (std::none_of(given.begin(), given.end(), [&](const auto& a) { return flag_of(a) == flag; })) {
      out.push_back(earlier[i]);
      if (takes_value) {
        out.push_back(earlier[i + 1]);
      }
    }
    i += takes_value ? 1 : 0;
  }
  if (!has_pipeline) {
    out.insert(out.begin(), run["pipeline"].get<std::string>());
  }
  return out;
}

/// A run of an attribution command: what it was asked, and the scores that it made.
class AttributionRun {
 public:
  AttributionRun(const CommandLine& line)
      : line_(line),
        pipeline_(required_pipeline(line), line.run_options()),
        measurement_(parse_measurement(line.text("measurement"))),
        normalization_(parse_normalization(line.text("normalize"))),
        record_(line, pipeline_) {
    const auto stage = line.required("stage");
    if (stage == "all") {
      for (std::size_t k = 0; k < pipeline_.stages().size(); ++k) {
        stages_.push_back(k);
      }
    } else {
      stages_.push_back(pipeline_.stage_index(stage));
    }
    if (line.has("relative-damping") && line.get<double>("damping") != 0) {
      throw UsageError("--damping and --relative-damping exclude each other");
    }
    if (line.get<std::int64_t>("query-block") < 1) {
      throw UsageError(fmt::format("--query-block = {}, expected >= 1", line.get<std::int64_t>("query-block")));
    }
    if (line.get<std::int64_t>("limit-queries") < 0) {
      throw UsageError(fmt::format("--limit-queries = {}, expected >= 0", line.get<std::int64_t>("limit-queries")));
    }
    set_response(line.text("response"), options_);
    options_.inversion = parse_inversion(line.text("inversion"));
    options_.damping = non_negative("damping", line.get<double>("damping"));
    options_.relative_damping =
        line.has("relative-damping") ? non_negative("relative-damping", line.get<double>("relative-damping")) : 0;
    auto& options = record_.json()["options"];
    options["stage"] = stage;
    options["queries"] = line.required("queries");
    options["limit-queries"] = line.get<std::int64_t>("limit-queries");
    options["measurement"] = to_string(measurement_);
    options["method"] = resolved_spec<Attributor>(line.text("method"));
    options["normalize"] = to_string(normalization_);
    attributor_ = create<Attributor>(line.text("method"));
    curvature_ = create<Curvature>(line.text("curvature"));
    solver_ = create<Solver>(line.text("solver"));
    if (attributor_->uses_curvature()) {
      options["curvature"] = resolved_spec<Curvature>(line.text("curvature"));
      options["solver"] = resolved_spec<Solver>(line.text("solver"));
      options["response"] = line.text("response");
      options["inversion"] = to_string(options_.inversion);
      options["damping"] = options_.damping;
      options["relative-damping"] = options_.relative_damping;
    }
  }

  /// What run() would take, measured on a few batches. Writes nothing.
  nlohmann::ordered_json plan() {
    const double program = resident_bytes();
    load();
    return make_plan({chain_, stages_, queries_, measurement_, normalization_,
                      std::min(line_.get<std::int64_t>("query-block"), queries_.size()), *source_,
                      attributor_->uses_curvature() ? line_.text("solver") : "",
                      pipeline_.options().dtype == at::kDouble ? 8. : 4., program});
  }

  /// Scores into `folder`, or finds them done there. With `top` > 0 texts' tokens are scored too, of so many examples.
  void run(const fs::path& folder, std::int64_t top = 0) {
    top_ = top;
    record_.phase("load");
    load();
    record_.add_inputs(pipeline_, queries_);
    measurements_ = measure_all(measurement_, chain_.back(), queries_);
    check_finite(measurements_, "a query's measurement");
    make_folder(folder);
    if (ScoreStore::complete(folder) && fs::exists(folder / "run.json") &&
        read_scores(folder).run_key == record_.key()) {
      reused_ = true;
      const auto earlier = nlohmann::ordered_json::parse(read_text(folder / "run.json"));
      for (const auto& warning : earlier.value("warnings", nlohmann::ordered_json::array())) {
        record_.warning(warning);
      }
      record_.json() = earlier;
      keep_earlier_tokens(folder / "ranking.jsonl");
      return;
    }
    record_.phase("check");
    const bool curved = attributor_->uses_curvature();
    record_.add_stages(chain_, curved, curved && options_.response == Response::kStationary);
    record_.phase("attribute");
    score(folder);
    record_.write(folder / "run.json");
  }

  /// Ranks what run() scored.
  std::vector<Ranking> rankings(const fs::path& folder, std::int64_t top) const {
    const auto scores = read_scores(folder);
    std::vector<Ranking> out;
    for (std::int64_t q = 0; q < queries_.size(); ++q) {
      for (std::size_t s = 0; s < stages_.size(); ++s) {
        auto ranking = rank_examples(scores.stages.at(s).scores[q], scores.stages.at(s).example_ids, top);
        ranking.query = queries_.ids()[q].item<std::int64_t>();
        ranking.stage = chain_[stages_[s]].name;
        ranking.measurement = measurements_[q].item<double>();
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

  const Chain& chain() const { return chain_; }
  const Dataset& queries() const { return queries_; }
  const std::vector<std::size_t>& stages() const { return stages_; }
  RunRecord& record() { return record_; }
  bool reused() const { return reused_; }
  Measurement measurement() const { return measurement_; }

 private:
  static std::string required_pipeline(const CommandLine& line) {
    if (!line.has("PIPELINE")) {
      throw UsageError(fmt::format("PIPELINE is missing; `whence {} --help` tells the arguments", line.command()));
    }
    return line.text("PIPELINE");
  }
  static double non_negative(const char* name, double value) {
    if (!(value >= 0) || !(value < 1e300)) {
      throw InvalidArgument(fmt::format("--{} = {}, expected >= 0", name, value));
    }
    return value;
  }
  static void make_folder(const fs::path& folder) {
    std::error_code code;
    fs::create_directories(folder, code);
    if (code) {
      throw DataError(fmt::format("cannot make the folder {}: {}", folder.string(), code.message()));
    }
  }

  void load() {
    chain_ = pipeline_.load();
    queries_ = pipeline_.queries(line_.text("queries"), line_.get<std::int64_t>("limit-queries"));
    source_ = attributor_->prepare(chain_, {*curvature_, *solver_, options_});
    source_->check(stages_, measurement_, normalization_);
  }

  void score(const fs::path& folder) {
    std::vector<ScoreLayout> layouts;
    for (const auto k : stages_) {
      const auto name = stages_.size() == 1 ? std::string("scores") : "scores." + chain_[k].name;
      layouts.push_back({name, chain_[k].objective.data().ids()});
    }
    const bool wide = pipeline_.options().dtype == at::kDouble;
    ScoreStore store(folder, record_.key(), layouts, queries_.ids(), wide ? at::kDouble : at::kFloat);
    AttributionTask task{chain_,        stages_, {}, queries_, measurement_, line_.get<std::int64_t>("query-block"),
                         normalization_};
    for (const auto& layout : layouts) {
      task.sinks.push_back(&store.sink(layout.name));
    }
    const VectorCache cache{
        [&](const std::string& block) { return store.load_vectors(block); },
        [&](const std::string& block, const ParameterSet& vectors) { store.save_vectors(block, vectors); }};
    const auto solves = attribute(task, *source_, cache, terminal_progress(line_.flag("quiet")));
    end_progress();
    record_.add_solves(solves, source_->evidence(), chain_);
    if (top_ > 0 &&
        std::any_of(stages_.begin(), stages_.end(), [&](auto k) { return chain_[k].objective.data().is_text(); })) {
      store.write_scores();
      TokenScorer scorer(task, *source_, cache);
      auto rankings = this->rankings(folder, top_);
      for (std::size_t i = 0; i < rankings.size(); ++i) {
        score_tokens(rankings[i], static_cast<std::int64_t>(i / stages_.size()), stages_[i % stages_.size()], scorer);
      }
      keep_tokens(rankings);
    }
    store.finish();
  }

  /// Fills in what each token of the ranked texts adds.
  void score_tokens(Ranking& ranking, std::int64_t query, std::size_t stage, TokenScorer& scorer) const {
    const auto& data = chain_[stage].objective.data();
    if (!data.is_text()) {
      return;
    }
    for (auto* list : {&ranking.proponents, &ranking.opponents}) {
      for (auto& entry : *list) {
        const auto row = row_of(data, entry.example);
        const auto scores = scorer.scores(stage, query, row);
        const auto texts = data.token_texts(row);
        for (std::size_t t = 0; scores.defined() && t < texts.size(); ++t) {
          entry.tokens.emplace_back(texts[t], scores[static_cast<std::int64_t>(t)].item<double>());
        }
      }
    }
  }
  /// An earlier ranking's, whose vectors are gone. One that cannot be read is written anew without.
  void keep_earlier_tokens(const fs::path& path) {
    try {
      if (fs::exists(path)) {
        keep_tokens(read_rankings(path));
      }
    } catch (const DataError& error) {
      warn(error.what());
    }
  }
  void keep_tokens(const std::vector<Ranking>& rankings) {
    for (const auto& ranking : rankings) {
      for (const auto* list : {&ranking.proponents, &ranking.opponents}) {
        for (const auto& entry : *list) {
          tokens_[{ranking.query, ranking.stage, entry.example}] = entry.tokens;
        }
      }
    }
  }

  const CommandLine& line_;
  Pipeline pipeline_;
  Measurement measurement_;
  Normalization normalization_;
  InverseOptions options_;
  std::vector<std::size_t> stages_;
  std::unique_ptr<Attributor> attributor_;
  std::unique_ptr<Curvature> curvature_;
  std::unique_ptr<Solver> solver_;
  RunRecord record_;
  Chain chain_;
  Dataset queries_;
  std::unique_ptr<ScoreSource> source_;
  at::Tensor measurements_;
  std::int64_t top_ = 0;
  std::map<std::tuple<std::int64_t, std::string, std::int64_t>, std::vector<std::pair<std::string, double>>> tokens_;
  bool reused_ = false;
};

/// What the reader should know before believing the table.
void print_evidence(const nlohmann::ordered_json& run) {
  fmt::print("\nevidence\n");
  for (const auto& [name, stage] : run.at("stages").items()) {
    fmt::print("  {:<12} ", name);
    if (stage.contains("gradient-norm")) {
      fmt::print("|gradient| {:.1e}, {:.1e} of an example's", stage.at("gradient-norm").get<double>(),
                 stage.at("relative-gradient-norm").get<double>());
    } else {
      fmt::print("{} examples, {} trained parameters", stage.at("examples").get<std::int64_t>(),
                 stage.at("trained-parameters").get<std::int64_t>());
    }
    if (stage.contains("solves")) {
      const auto& first = stage.at("solves").at(0);
      const double worst = stage.at("largest-relative-residual").get<double>();
      fmt::print("; {} {}, {}, {:.0f} products, damping {:.3g}", stage.at("solves").size(),
                 stage.at("approximate-solves").get<int>() > 0 ? "approximate solves" : "solves",
                 worst >= 0 ? fmt::format("largest relative residual {:.1e}", worst) : "residual not measured",
                 stage.at("products").get<double>(), stage.at("damping").get<double>());
      if (stage.contains("smallest-ritz-value")) {
        fmt::print(", Ritz values {:.2g} to {:.2g}", stage.at("smallest-ritz-value").get<double>(),
                   stage.at("largest-ritz-value").get<double>());
      }
      const auto message = first.at("message").get<std::string>();
      if (const auto picked = message.find("auto picked"); picked != std::string::npos) {
        fmt::print("; {}", message.substr(picked));
      }
    }
    fmt::print("\n");
  }
}

/// "class 7", "value 0.3", or nothing where tokens are predicted.
std::string named_label(const Dataset& data, std::int64_t row) {
  switch (data.target_kind()) {
    case TargetKind::kClasses:
      return "class " + example_label(data, row);
    case TargetKind::kValues:
      return "value " + example_label(data, row);
    default:
      return "";
  }
}

void print_columns(const Ranking& ranking, const Dataset& data) {
  const auto label_of = [&](std::int64_t id) { return example_label(data, row_of(data, id)); };
  fmt::print("  {:>9} {:>8} {:>11} {:>11}    {:>9} {:>8} {:>11} {:>11}\n", "proponent", "class", "score", "removal",
             "opponent", "class", "score", "removal");
  for (std::size_t r = 0; r < ranking.proponents.size(); ++r) {
    const auto& p = ranking.proponents[r];
    const auto& o = ranking.opponents[r];
    fmt::print("  {:>9} {:>8} {:>+11.3e} {:>+11.3e}    {:>9} {:>8} {:>+11.3e} {:>+11.3e}\n", p.example,
               label_of(p.example), p.score, p.removal, o.example, label_of(o.example), o.score, o.removal);
  }
}

/// One text a paragraph, its tokens shaded by what they add to the score where the terminal has colours.
void print_texts(const Ranking& ranking, const Dataset& data) {
  for (const auto& [title, list] : {std::pair("proponent", &ranking.proponents), {"opponent", &ranking.opponents}}) {
    for (const auto& entry : *list) {
      const auto row = row_of(data, entry.example);
      const auto label = named_label(data, row);
      fmt::print("  {:<9} {:>7}  {:>+.3e}  removal {:>+.3e}{}{}\n", title, entry.example, entry.score, entry.removal,
                 label.empty() ? "" : "  ", label);
      fmt::print("    {}\n", shaded_text(entry.tokens, data.token_texts(row)));
    }
  }
}

void print_table(const AttributionRun& run, const std::vector<Ranking>& rankings) {
  fmt::print("score > 0: more of the example raises the {}; removal: predicted change when it is left out\n",
             to_string(run.measurement()));
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const auto& ranking = rankings[i];
    const auto s = i % run.stages().size(), q = i / run.stages().size();
    const auto& data = run.chain()[run.stages()[s]].objective.data();
    const auto label = named_label(run.queries(), static_cast<std::int64_t>(q));
    fmt::print("\nquery {}{}, {} {:.6g}, examples of {}\n", ranking.query, label.empty() ? "" : " (" + label + ")",
               to_string(run.measurement()), ranking.measurement, ranking.stage);
    if (run.queries().is_text()) {
      fmt::print("    {}\n", shaded_text({}, run.queries().token_texts(static_cast<std::int64_t>(q))));
    }
    if (data.is_text()) {
      print_texts(ranking, data);
    } else {
      print_columns(ranking, data);
    }
  }
}

/// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_(fs::temp_directory_path() / fmt::format("whence-{}", ::getpid())) {}
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

int show_plan(const CommandLine& line) {
  const auto plan = AttributionRun(line).plan();
  if (line.flag("json")) {
    fmt::print("{}\n", plan.dump(2));
  } else {
    print_plan(plan);
  }
  return kDone;
}

}  // namespace

int score(const std::vector<std::string>& arguments) {
  CommandLine line("score", "PIPELINE --stage NAME|all --queries SPLIT --out DIR [options]",
                   "Scores every example of a stage against every query into DIR/scores.safetensors. An interrupted "
                   "run goes on where it stopped.");
  add_attribution_options(line);
  if (!line.parse(with_earlier(arguments))) {
    return kDone;
  }
  if (line.flag("plan")) {
    return show_plan(line);
  }
  const fs::path folder = line.required("out");
  AttributionRun run(line);
  run.run(folder);
  if (line.flag("json")) {
    fmt::print("{}\n", run.record().json().dump(2));
  } else {
    fmt::print("{}: {} queries{}\n", (folder / "scores.safetensors").string(), run.queries().size(),
               run.reused() ? ", already complete" : "");
    print_evidence(run.record().json());
  }
  return run.record().exit_status(line.flag("strict"));
}

int rank(const std::vector<std::string>& arguments) {
  CommandLine line(
      "rank", "PIPELINE --stage NAME|all --queries SPLIT [--top K] [--out DIR] [options]",
      "Scores a stage's examples, then shows the strongest for each query, and saves them with the scores in DIR.");
  add_attribution_options(line);
  line.add()("top", po::value<std::int64_t>()->default_value(5), "proponents and opponents to show of each query");
  if (!line.parse(with_earlier(arguments))) {
    return kDone;
  }
  const auto top = line.get<std::int64_t>("top");
  if (top < 1) {
    throw UsageError(fmt::format("--top = {}, expected >= 1", top));
  }
  if (line.flag("plan")) {
    return show_plan(line);
  }
  const TemporaryFolder temporary;
  const fs::path folder = line.has("out") ? fs::path(line.text("out")) : temporary.path();
  AttributionRun run(line);
  run.run(folder, top);
  const auto rankings = run.rankings(folder, top);
  write_rankings(folder / "ranking.jsonl", rankings);
  if (line.flag("json")) {
    fmt::print("{}", read_text(folder / "ranking.jsonl"));
  } else {
    print_table(run, rankings);
    print_evidence(run.record().json());
  }
  return run.record().exit_status(line.flag("strict"));
}

}  // namespace whence::cli
