#include "comparison.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "json.h"
#include "plan.h"
#include "query_split.h"
#include "result.h"
#include "say.h"
#include "truth.h"
#include "whence/attribution/attribute.h"
#include "whence/attribution/self_influence.h"
#include "whence/attribution/started.h"
#include "whence/attribution/unrolled_source.h"
#include "whence/core/digest.h"
#include "whence/core/options.h"
#include "whence/core/parallel.h"
#include "whence/core/seconds.h"
#include "whence/core/tensors.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/evaluate/bm25.h"
#include "whence/evaluate/training_bank.h"
#include "whence/evaluate/verdict.h"
#include "whence/stages/cost.h"

namespace whence::cli {
namespace {

std::vector<std::string> texts_of(const Dataset& data) {
  std::vector<std::string> out;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    out.push_back(fmt::format("{}", fmt::join(data.token_texts(i), "")));
  }
  return out;
}

/// What `make` gives, told of negative curvature where a solve met it and the choice of a curvature is open.
template <class Make>
auto despite_indefinite(const ListedMethod& method, const Make& make) {
  try {
    return make(false);
  } catch (const IndefiniteCurvature&) {
    if (!method.asked.curvature_is_open()) {
      throw;
    }
    return make(true);
  }
}

InverseProblem problem_of(const InverseChoice& choice) {
  return {create<Curvature>(choice.curvature), create<Solver>(choice.solver), choice.options};
}

/// Of all in a record that scores rest on, the method apart.
std::string scores_key(const Json& record) {
  Json out;
  for (const char* name : {"dtype", "device", "stage", "queries", "limit-queries", "measurement"}) {
    out[name] = record["options"][name];
  }
  for (const char* name : {"seed", "inputs", "versions"}) {
    out[name] = record[name];
  }
  return json_text(out);
}

}  // namespace

std::vector<double> removed_percents(const CommandLine& line) {
  std::vector<double> out;
  std::string piece;
  for (const char c : line.text("remove") + ",") {
    if (c != ',') {
      piece += c;
      continue;
    }
    double value = 0;
    if (!detail::read_option(piece, value) || !(value >= 1e-6 && value <= 99.99)) {
      throw UsageError(fmt::format("--remove = {}, expected numbers from 1e-06 to 99.99, 1,5,10", line.text("remove")));
    }
    out.push_back(value);
    piece.clear();
  }
  return out;
}

std::string scoring_text(const Json& plan) {
  double low = 0, high = 0;
  std::vector<std::pair<double, std::string>> longest;  // those that take a second
  for (const auto& [name, seconds] : plan.items()) {
    const double least = seconds["low"], most = seconds["high"].is_null() ? std::nan("") : double(seconds["high"]);
    low += least;
    high += most;
    if (!(most < 1)) {
      longest.emplace_back(-least,
                           fmt::format("{} {}{}", name, std::isnan(most) ? "more than " : "", seconds_text(least)));
    }
  }
  std::sort(longest.begin(), longest.end());
  auto out = std::isnan(high) ? fmt::format("more than {} to score", seconds_text(low))
                              : fmt::format("about {} to score", seconds_text((low + high) / 2));
  for (std::size_t i = 0; i < longest.size(); ++i) {
    out += (i == 0 ? ": " : ", ") + longest[i].second;
  }
  return out;
}

Json json_ends(const Interval& interval) { return {json_number(interval.low), json_number(interval.high)}; }

Comparison::Comparison(const CommandLine& line, const Truth& truth)
    : line_(line),
      truth_(truth),
      pipeline_(line.text("PIPELINE"), line.run_options()),
      record_(line, pipeline_),
      stage_(pipeline_.stage_index(line.has("stage") ? line.text("stage") : pipeline_.stages().back().name)),
      split_(required_query_split(line, pipeline_)),
      measurement_(parse_measurement(line.text("measurement"))),
      progress_(terminal_progress(line.flag("quiet"))),
      train_from_(truth.train_from(line)) {
  if (const auto from = line.text("train-from"); from != "start" && from != "checkpoint") {
    throw UsageError(unknown_name("--train-from", from, {"start", "checkpoint"}));
  }
  auto& options = record_.json()["options"];
  options["against"] = line.text("against");
  options["stage"] = pipeline_.stages()[stage_].name;
  options["queries"] = split_;
  options["limit-queries"] = line.whole("limit-queries", 0);
  options["measurement"] = to_string(measurement_);
  options["methods"] = line.has("methods") ? line.text("methods") : "influence";
  for (const char* name : {"examples", "subsets"}) {
    options[name] = line.whole(name, 2);
  }
  options["fraction"] = line.get<double>("fraction");
  options["remove"] = line.text("remove");
  options["ceiling"] = !line.flag("no-ceiling");
  options["source-column"] = line.has("source-column") ? line.text("source-column") : "";
  options["optimizer"] = line.has("optimizer") ? line.text("optimizer") : "";
  removed_percents(line);
  truth.check_flags(line);
  record_.warn_of_changes(pipeline_);
  chain_ = pipeline_.load();
  queries_ = pipeline_.queries(split_, line.whole("limit-queries", 0));
  check_room(chain_.back(), queries_);
  methods_ = method_list(options["methods"].get<std::string>(), data().is_text() && queries_.is_text());
  for (auto& method : methods_) {
    method.attributor = informed(method);
  }
  if (const auto why =
          truth.trains() && train_from_ == "start" ? Trainings::unknown_start(pipeline_, chain_, stage_) : "";
      !why.empty()) {
    if (line.given("train-from")) {
      throw InvalidArgument(why);
    }
    train_from_ = "checkpoint";
    note("trainings go on from the checkpoint: " + why);
  }
  options["train-from"] = train_from_;
  record_.add_inputs(pipeline_, queries_);
  score_key_ = scores_key(record_.json());
  for (auto k = stage_; k < chain_.size(); ++k) {
    const auto beside = pipeline_.training(k) ? std::nullopt : no_better_than_guess(chain_[k]);
    if (const auto text = guessing_text(chain_[k], beside); !text.empty()) {
      record_.warning(text);
    }
  }
  check_methods();
}

void Comparison::train_in(const std::filesystem::path& bank) {
  bank_ = bank;
  trainings_ = std::make_unique<Trainings>(Trainings::What{pipeline_, chain_, stage_, queries_, measurement_,
                                                           line_.has("optimizer") ? line_.text("optimizer") : "",
                                                           train_from_ == "start", bank});
}

InverseChoice Comparison::choice(const ListedMethod& method, const Chain& chain, std::int64_t solved,
                                 bool indefinite) const {
  if (!method.attributor->uses_curvature()) {
    return {"hessian", "cg", {}, {}, {}, {}};
  }
  auto asked = method.asked;
  asked.indefinite = indefinite;
  return choose_inverse(chain, stage_, solved, asked, progress_);
}

const Comparison::Chosen& Comparison::own_choice(const ListedMethod& method, bool indefinite) const {
  const std::pair key(method.name, indefinite);
  const auto found = chosen_.find(key);
  if (found != chosen_.end()) {
    return found->second;
  }
  const auto start = Clock::now();
  auto made = choice(method, chain_, queries_.size(), indefinite);
  return chosen_.emplace(key, Chosen{std::move(made), seconds_since(start)}).first->second;
}

std::shared_ptr<const Attributor> Comparison::informed(const ListedMethod& method) const {
  if (method.unrolled) {
    return std::make_shared<UnrolledInfluence>(
        [this](const Chain& chain) { return training_runs(pipeline_, chain, stage_); });
  }
  const auto* with = dynamic_cast<const StartedAttributor*>(method.attributor.get());
  if (with == nullptr) {
    return method.attributor;
  }
  StageStart start;
  const auto last = chain_.size() - 1;
  try {
    start.theta = pipeline_.start(last, Chain(chain_.begin(), chain_.end() - 1));
  } catch (const InvalidArgument& error) {
    start.unknown = error.what();
  }
  return with->with_starts({{chain_[last].name, start}});
}

std::unique_ptr<ScoreSource> Comparison::source(const ListedMethod& method, const Chain& chain,
                                                const InverseProblem& inverse) const {
  auto out = method.attributor->prepare(chain, inverse);
  out->check({stage_}, measurement_, Normalization::kNone);
  return out;
}

void Comparison::check_methods() {
  std::vector<ListedMethod> able;
  for (const auto& method : methods_) {
    try {
      truth_.check_method(method);
      if (method.attributor) {
        const InverseOptions& options = method.asked.options;
        const auto open = options.response == Response::kProximalBregman ? "gauss-newton" : "hessian";
        const auto curvature = method.asked.curvature_is_open() ? open : method.asked.curvature;
        source(method, chain_, {create<Curvature>(curvature), create<Solver>("cg"), options});
      }
      able.push_back(method);
    } catch (const InvalidArgument& error) {
      if (method.named) {
        throw InvalidArgument(fmt::format("--methods: {}: {}", method.name, error.what()));
      }
      note(fmt::format("{} is left out: {}", method.name, error.what()));
    }
  }
  methods_ = std::move(able);
}

at::Tensor Comparison::scores(const ListedMethod& method, const Chain& chain) const {
  return scores_by(method, chain,
                   [&](bool indefinite) { return problem_of(choice(method, chain, queries_.size(), indefinite)); });
}

at::Tensor Comparison::scores_by(const ListedMethod& method, const Chain& chain,
                                 const std::function<InverseProblem(bool)>& problem) const {
  if (!method.attributor) {
    return bm25(texts_of(queries_), texts_of(chain[stage_].objective.data())) * outcome_sign(measurement_);
  }
  return despite_indefinite(method, [&](bool indefinite) {
    return score_matrix(chain, stage_, *source(method, chain, problem(indefinite)), queries_, measurement_);
  });
}

at::Tensor Comparison::scores_at(const ListedMethod& method, const at::Tensor& weights) const {
  if (!method.attributor || !method.attributor->uses_curvature()) {
    return {};
  }
  auto weighted = chain_;
  weighted[stage_].objective = weighted[stage_].objective.with_weights(weights);
  try {
    return despite_indefinite(method, [&](bool indefinite) {
      const auto inverse = problem_of(own_choice(method, indefinite).choice);
      if (inverse.curvature->factored()) {
        return at::Tensor();  // factors are of all examples
      }
      return score_matrix(weighted, stage_, *method.attributor->prepare(weighted, inverse), queries_, measurement_);
    });
  } catch (const NumericalError&) {
    return {};
  }
}

at::Tensor Comparison::self_scores(const ListedMethod& method, const Chain& chain) const {
  return despite_indefinite(method, [&](bool indefinite) {
    const auto inverse = problem_of(choice(method, chain, 1, indefinite));
    const bool open = create<Solver>(method.asked.solver)->picks();
    return self_influence({.chain = chain,
                           .stage = stage_,
                           .attributor = method.attributor,
                           .curvature = inverse.curvature,
                           .solver = open ? nullptr : inverse.solver,
                           .options = inverse.options,
                           .leverages = false},
                          progress_)
        .scores;
  });
}

std::filesystem::path Comparison::place_of_scores(const ListedMethod& method) const {
  Digest digest;
  digest.add(score_key_).add(method.name);
  if (method.attributor && method.attributor->uses_curvature()) {
    const auto& chosen = own_choice(method, false).choice;  // which another version may make otherwise
    const auto& options = chosen.options;
    digest.add(json_text(
        Json{chosen.curvature, chosen.solver, options.damping, options.relative_damping, options.least_damping}));
  }
  return bank_ / (digest.text() + ".safetensors");
}

std::optional<Comparison::Scored> Comparison::kept_scores(const ListedMethod& method) const {
  const auto place = place_of_scores(method);
  if (!std::filesystem::exists(place)) {
    return std::nullopt;
  }
  const auto held = read_sealed(place);
  return Scored{method.name, held.tensors.at("scores"), metadata_number<double>(held.metadata, "seconds", place),
                method.claim()};
}

std::vector<Comparison::Scored> Comparison::scored() const {
  std::vector<Scored> out;
  for (std::size_t i = 0; i < methods_.size(); ++i) {
    const auto& method = methods_[i];
    if (auto kept = kept_scores(method)) {
      out.push_back(std::move(*kept));
      continue;
    }
    report(progress_,
           {"score by " + method.name, static_cast<std::int64_t>(i), static_cast<std::int64_t>(methods_.size()), ""});
    const bool curved = method.attributor && method.attributor->uses_curvature();
    const double choosing = curved ? own_choice(method, false).seconds : 0;
    const auto start = Clock::now();
    auto made =
        scores_by(method, chain_, [&](bool indefinite) { return problem_of(own_choice(method, indefinite).choice); });
    const double seconds = choosing + seconds_since(start);
    ParameterSet held;
    held.add("scores", made);
    keep_in_bank(place_of_scores(method), held, {{"seconds", fmt::format("{}", seconds)}});
    out.push_back({method.name, std::move(made), seconds, method.claim()});
  }
  end_progress();
  return out;
}

std::optional<std::vector<Comparison::Scored>> Comparison::scored_before() const {
  std::vector<Scored> out;
  for (const auto& method : methods_) {
    auto kept = kept_scores(method);
    if (!kept) {
      return std::nullopt;
    }
    out.push_back(std::move(*kept));
  }
  return out;
}

Json Comparison::scoring_plan(std::int64_t again) const {
  Json out = Json::object();
  for (const auto& method : methods_) {
    const bool curved = method.attributor && method.attributor->uses_curvature();
    const auto times = (std::filesystem::exists(place_of_scores(method)) ? 0 : 1) + (curved ? again : 0);
    if (!method.attributor || times == 0) {
      continue;
    }
    report(progress_, {"time scores by " + method.name, 0, 0, ""});
    const auto seconds = despite_indefinite(method, [&](bool indefinite) {
      const auto& chosen = own_choice(method, indefinite).choice;
      const auto made = source(method, chain_, problem_of(chosen));
      return scoring_seconds({chain_,
                              *method.attributor,
                              chosen.options,
                              {stage_},
                              queries_,
                              measurement_,
                              Normalization::kNone,
                              std::min(AttributionTask().query_block, queries_.size()),
                              *made,
                              curved ? chosen.curvature : "",
                              curved ? chosen.solver : "",
                              0,
                              0});
    });
    out[method.name] = {{"low", static_cast<double>(times) * seconds.low},
                        {"high", json_number(static_cast<double>(times) * seconds.high)}};
  }
  end_progress();
  return out;
}

std::vector<std::uint64_t> Comparison::seeds() const {
  return line_.flag("no-ceiling") ? std::vector<std::uint64_t>{0} : std::vector<std::uint64_t>{0, 1};
}

bool Comparison::planned(const Work& work) {
  const auto all = work.weights.size(0) * static_cast<std::int64_t>(work.seeds.size()) + work.later;
  auto missing = work.later;
  for (const auto seed : work.seeds) {
    missing += trainings_->missing(work.weights, seed);
  }
  const bool asked = line_.flag("plan");
  if (!asked && (missing == 0 || line_.given(work.count_flag))) {
    trainings_->check_reference(progress_);
    return false;
  }
  const auto time = time_trainings(*trainings_, missing, progress_);
  if (asked) {
    const auto scoring = scoring_plan(work.scored_again);
    const Json plan{{"against", line_.text("against")}, {"trainings", all},
                    {"kept-trainings", all - missing},  {"seconds-a-training", time.one.seconds},
                    {"side-by-side", time.at_once},     {"seconds", time.seconds},
                    {"scoring-seconds", scoring}};
    tell_plan(plan,
              fmt::format("{} trainings, {} of them kept, {} at a time\ntime    {} to train{}", all, all - missing,
                          time.at_once, time.told, scoring.empty() ? "" : ", " + scoring_text(scoring)));
    return true;
  }
  const auto& count = record_.json()["options"][work.count_flag];
  check_patience(time, missing,
                 fmt::format("to wait for them type --{} {}, or fewer{}{}", work.count_flag,
                             count.is_string() ? count.get<std::string>() : count.dump(),
                             work.seeds.size() > 1 ? "; --no-ceiling halves them" : "",
                             trainings_->untold().empty() ? "" : "; " + say_optimizer_text(trainings_->untold())));
  trainings_->check_reference(progress_);
  return false;
}

void Comparison::tell_plan(const Json& plan, const std::string& text) const {
  end_progress();
  say("{}\n", Ready{line_.flag("json") ? json_text(plan, 2) : text});
}

std::vector<Retraining> Comparison::train(const at::Tensor& weights, const std::vector<std::uint64_t>& seeds) {
  std::vector<Retraining> out;
  const auto start = Clock::now();
  std::int64_t made = 0;
  for (const auto seed : seeds) {
    made += trainings_->missing(weights, seed);
    out.push_back(trainings_->run(weights, seed, progress_));
  }
  end_progress();
  one_training_ =
      made == 0 ? std::numeric_limits<double>::quiet_NaN() : seconds_since(start) / static_cast<double>(made);
  return out;
}

Json Comparison::told(const std::vector<Retraining>& trained) const {
  double largest = 0;
  std::int64_t unconverged = 0, count = 0;
  for (const auto& truth : trained) {
    largest = std::max(largest, truth.largest_gradient_norm);
    unconverged += truth.unconverged;
    count += truth.measurements.size(0);
  }
  Json out{{"trainings", count}};
  out.update(trainings_->told());
  out.update({{"seconds-a-training", json_number(one_training_)},
              {"largest-gradient-norm", largest},
              {"unconverged-trainings", unconverged}});
  return out;
}

double Comparison::check_repeats(const at::Tensor& measurements) {
  const double apart = trainings_->apart(measurements);
  constexpr double kTolerated = 1e-2;
  if (train_from_ == "start" && apart > kTolerated) {
    record_.warning(
        fmt::format("stage {}: trained again from its start it ends elsewhere than its checkpoint (the queries' "
                    "measurements differ "
                    "by {:.2g} of their size): the truth is of another training than the scores",
                    stage().name, apart));
  }
  return apart;
}

}  // namespace whence::cli
