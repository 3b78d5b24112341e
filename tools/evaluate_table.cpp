#include "evaluate_table.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "attribution_options.h"
#include "method_list.h"
#include "result.h"
#include "run_record.h"
#include "say.h"
#include "trainings.h"
#include "whence/attribution/attribute.h"
#include "whence/attribution/self_influence.h"
#include "whence/attribution/started.h"
#include "whence/attribution/unrolled_source.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/output.h"
#include "whence/core/parallel.h"
#include "whence/core/seconds.h"
#include "whence/core/tensors.h"
#include "whence/data/example_column.h"
#include "whence/evaluate/bm25.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/suspects.h"
#include "whence/evaluate/verdict.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

using Json = nlohmann::ordered_json;
const std::vector<std::string> kKinds{"retraining", "lds", "removal", "mislabel", "recall", "further-training"};
constexpr double kUnaskedSeconds = 600;  // seconds that nobody is asked about
/// Draws of random that a removal is compared with.
constexpr std::int64_t kRandomRemovals = 4;

Json json_number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json ends(const Interval& interval) { return {json_number(interval.low), json_number(interval.high)}; }

/// "1,5,10" of percents, or counts.
std::vector<double> list_of(const CommandLine& line, const char* flag, double least, double most) {
  std::vector<double> out;
  std::string piece;
  for (const char c : line.text(flag) + ",") {
    if (c != ',') {
      piece += c;
      continue;
    }
    double value = 0;
    if (!detail::read_option(piece, value) || !(value >= least && value <= most)) {
      throw UsageError(
          fmt::format("--{} = {}, expected numbers from {:g} to {:g}, 1,5,10", flag, line.text(flag), least, most));
    }
    out.push_back(value);
    piece.clear();
  }
  return out;
}

/// What was asked, the chain, and the truth's trainings.
class Table {
 public:
  explicit Table(const CommandLine& line);
  int run();

 private:
  struct Scored {
    std::string method;
    at::Tensor scores;  ///< [Q, N] float64.
    double seconds = 0;
    bool sizes = false;  ///< -score / N is a change.
  };

  std::string queries_split() const;
  fs::path folder();
  void check_folder(const ResultWriter& writer) const;
  void check_methods();
  const Dataset& data() const { return chain_[stage_].objective.data(); }
  Random random() const { return Random(pipeline_.seed()).stream("evaluate"); }
  InverseProblem problem(const ListedMethod& method, const Chain& chain, std::int64_t solved, bool indefinite) const;
  /// The method's attributor as it knows of this pipeline's trainings.
  std::shared_ptr<const Attributor> informed(const ListedMethod& method) const;
  std::unique_ptr<ScoreSource> source(const ListedMethod& method, const Chain& chain, bool indefinite) const;
  at::Tensor scores(const ListedMethod& method, const Chain& chain) const;
  std::vector<Scored> scored() const;
  /// Fits the trainings into what a person waits for, or throws with what to type. True: --plan was told.
  bool planned(std::int64_t missing, std::int64_t all, const std::string& count_flag);
  /// How many of the trainings with every seed the bank lacks.
  std::int64_t missing(const at::Tensor& weights) const;
  std::vector<Retraining> train(const at::Tensor& weights, const std::vector<std::uint64_t>& seeds);
  std::vector<std::uint64_t> seeds() const;
  std::int64_t all_seeds(std::int64_t trainings) const { return trainings * static_cast<std::int64_t>(seeds().size()); }

  std::optional<Json> lds();
  std::optional<Json> left_out();
  std::optional<Json> removal();
  std::optional<Json> mislabelled();
  std::optional<Json> recall();
  Json found(const std::vector<Retraining>& trained) const;
  /// Warns where the training with weights of 1, whose measurements these are [Q], does not give the checkpoint again.
  void check_repeats(const at::Tensor& measurements);

  const CommandLine& line_;
  const std::string against_;
  Pipeline pipeline_;
  RunRecord record_;
  std::size_t stage_;
  Measurement measurement_;
  Chain chain_;
  Dataset queries_;
  std::vector<ListedMethod> methods_;
  Progress progress_;
  std::optional<TemporaryFolder> temporary_;
  fs::path folder_;
  std::string from_;  ///< start or checkpoint.
  std::unique_ptr<Trainings> trainings_;
  double one_training_ = 0;
};

Table::Table(const CommandLine& line)
    : line_(line),
      against_(line.text("against")),
      pipeline_(line.text("PIPELINE"), line.run_options()),
      record_(line, pipeline_),
      stage_(pipeline_.stage_index(line.has("stage") ? line.text("stage") : pipeline_.stages().back().name)),
      measurement_(parse_measurement(line.text("measurement"))),
      progress_(terminal_progress(line.flag("quiet"))) {
  if (const auto from = line.text("train-from"); from != "start" && from != "checkpoint") {
    throw UsageError(unknown_name("--train-from", from, {"start", "checkpoint"}));
  }
  auto& options = record_.json()["options"];
  options["against"] = against_;
  options["stage"] = pipeline_.stages()[stage_].name;
  options["queries"] = queries_split();
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
  list_of(line, "remove", 1e-6, 99.99);
  if (against_ == "recall") {
    line.required("source-column");
  }
  record_.warn_of_changes(pipeline_);
  chain_ = pipeline_.load();
  queries_ = pipeline_.queries(options["queries"].get<std::string>(), line.whole("limit-queries", 0));
  check_room(chain_.back(), queries_);
  methods_ = method_list(options["methods"].get<std::string>(), data().is_text() && queries_.is_text());
  for (auto& method : methods_) {
    method.attributor = informed(method);
  }
  from_ = against_ == "further-training" ? "checkpoint" : line.text("train-from");
  const bool trains = against_ != "recall" && against_ != "further-training";
  if (const auto why = trains && from_ == "start" ? Trainings::unknown_start(pipeline_, chain_, stage_) : "";
      !why.empty()) {
    if (line.given("train-from")) {
      throw InvalidArgument(why);
    }
    from_ = "checkpoint";
    note("trainings go on from the checkpoint: " + why);
  }
  options["train-from"] = from_;
  record_.add_inputs(pipeline_, queries_);
  check_methods();
}

std::string Table::queries_split() const {
  const auto names = pipeline_.query_splits();
  if (line_.has("queries")) {
    return line_.text("queries");
  }
  if (names.size() == 1) {
    return names.front();
  }
  throw UsageError(fmt::format("--queries is missing: {} has {}", pipeline_.path().string(),
                               names.empty() ? "no queries" : fmt::format("{}", fmt::join(names, ", "))));
}

fs::path Table::folder() {
  if (line_.has("out")) {
    return line_.text("out");
  }
  if (!line_.flag("quiet")) {
    note("the trainings and the table are not kept: --out DIR keeps them for later runs");
  }
  return temporary_.emplace().path();
}

void Table::check_folder(const ResultWriter& writer) const {
  for (const auto& earlier : writer.earlier()) {
    if (earlier["command"].get<std::string>() != "evaluate") {
      throw InvalidArgument(fmt::format("{} holds a result of whence {}: choose another --out",
                                        writer.folder().string(), earlier["command"].get<std::string>()));
    }
  }
}

InverseProblem Table::problem(const ListedMethod& method, const Chain& chain, std::int64_t solved,
                              bool indefinite) const {
  if (!method.attributor->uses_curvature()) {
    return {create<Curvature>("hessian"), create<Solver>("cg"), {}};  // which the method does not look at
  }
  auto asked = method.asked;
  asked.indefinite = indefinite;
  const auto choice = choose_inverse(chain, stage_, solved, asked, progress_);
  return {create<Curvature>(choice.curvature), create<Solver>(choice.solver), choice.options};
}

std::shared_ptr<const Attributor> Table::informed(const ListedMethod& method) const {
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

std::unique_ptr<ScoreSource> Table::source(const ListedMethod& method, const Chain& chain, bool indefinite) const {
  auto out = method.attributor->prepare(chain, problem(method, chain, queries_.size(), indefinite));
  out->check({stage_}, measurement_, Normalization::kNone);
  return out;
}

/// What cannot be had is refused before any work.
void Table::check_methods() {
  std::vector<ListedMethod> able;
  for (const auto& method : methods_) {
    try {
      if (method.unrolled && against_ == "mislabel") {
        throw InvalidArgument("mislabelled examples are looked for by self-influence, a query of every example");
      }
      if (method.attributor) {
        const InverseOptions options = method.asked.options;
        const auto open = options.response == Response::kProximalBregman ? "gauss-newton" : "hessian";
        const auto curvature = method.asked.curvature_is_open() ? open : method.asked.curvature;
        method.attributor->prepare(chain_, {create<Curvature>(curvature), create<Solver>("cg"), options})
            ->check({stage_}, measurement_, Normalization::kNone);
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

at::Tensor Table::scores(const ListedMethod& method, const Chain& chain) const {
  if (!method.attributor) {
    return bm25(texts_of(queries_), texts_of(chain[stage_].objective.data())) * outcome_sign(measurement_);
  }
  return despite_indefinite(method, [&](bool indefinite) {
    return score_matrix(chain, stage_, *source(method, chain, indefinite), queries_, measurement_);
  });
}

std::vector<Table::Scored> Table::scored() const {
  std::vector<Scored> out;
  for (std::size_t i = 0; i < methods_.size(); ++i) {
    const auto& method = methods_[i];
    report(progress_,
           {"score by " + method.name, static_cast<std::int64_t>(i), static_cast<std::int64_t>(methods_.size()), ""});
    const auto start = Clock::now();
    auto made = scores(method, chain_);
    out.push_back({method.name, std::move(made), seconds_since(start),
                   method.attributor && method.attributor->predicts_removal(Normalization::kNone)});
  }
  end_progress();
  return out;
}

std::vector<std::uint64_t> Table::seeds() const {
  return line_.flag("no-ceiling") ? std::vector<std::uint64_t>{0} : std::vector<std::uint64_t>{0, 1};
}

std::int64_t Table::missing(const at::Tensor& weights) const {
  std::int64_t out = 0;
  for (const auto seed : seeds()) {
    out += trainings_->missing(weights, seed);
  }
  return out;
}

bool Table::planned(std::int64_t missing, std::int64_t all, const std::string& count_flag) {
  const bool asked = line_.flag("plan");
  if (!asked && (missing == 0 || line_.given(count_flag))) {
    return false;
  }
  report(progress_, {"time a training", 0, 0, ""});
  constexpr double kLimit = 20;
  const auto one = trainings_->time(kLimit);
  end_progress();
  const auto at_once = std::clamp<std::int64_t>(missing, 1, threads());
  const auto rounds = std::ceil(static_cast<double>(missing) / static_cast<double>(at_once));
  const double seconds = rounds * (std::isnan(one.at_most) ? one.seconds : one.at_most);
  const auto told = fmt::format("{}about {}", std::isnan(one.at_most) ? "more than " : "", duration_words(seconds));
  if (asked) {
    const Json plan{{"against", against_},
                    {"trainings", all},
                    {"kept-trainings", all - missing},
                    {"seconds-a-training", one.seconds},
                    {"side-by-side", at_once},
                    {"seconds", seconds}};
    line_.flag("json")
        ? say("{}\n", Ready{json_text(plan, 2)})
        : say("{} trainings, {} of them kept, {} at a time\ntime    {}\n", all, all - missing, at_once, told);
    return true;
  }
  if (seconds > kUnaskedSeconds) {
    throw InvalidArgument(fmt::format(
        "{} trainings would take {}, a training {}: to wait for them type --{} {}, or fewer{}", missing, told,
        duration_words(std::isnan(one.at_most) ? one.seconds : one.at_most), count_flag,
        line_.has(count_flag) && count_flag != "remove" ? std::to_string(line_.get<std::int64_t>(count_flag))
                                                        : line_.text(count_flag),
        line_.flag("no-ceiling") || against_ == "removal" ? "" : "; --no-ceiling halves them"));
  }
  return false;
}

std::vector<Retraining> Table::train(const at::Tensor& weights, const std::vector<std::uint64_t>& seeds) {
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

Json Table::found(const std::vector<Retraining>& trained) const {
  double largest = 0;
  std::int64_t unconverged = 0, count = 0;
  for (const auto& truth : trained) {
    largest = std::max(largest, truth.largest_gradient_norm);
    unconverged += truth.unconverged;
    count += truth.measurements.size(0);
  }
  return {{"trainings", count},
          {"train-from", from_},
          {"seconds-a-training", json_number(one_training_)},
          {"largest-gradient-norm", largest},
          {"unconverged-trainings", unconverged}};
}

void Table::check_repeats(const at::Tensor& measurements) {
  const auto at_checkpoint = measure_all(measurement_, chain_.back(), queries_);
  const double apart = ((measurements - at_checkpoint).norm() / at_checkpoint.norm()).item<double>();
  constexpr double kTolerated = 1e-2;
  if (from_ == "start" && apart > kTolerated) {
    record_.warning(
        fmt::format("stage {}: trained again from its start it ends elsewhere than its checkpoint (the queries' "
                    "measurements differ "
                    "by {:.2g} of their size): the truth is of another training than the scores",
                    chain_[stage_].name, apart));
  }
}

/// A row's value with its share of the ceiling.
void add_agreement(Json& row, const std::string& name, const CeilingedAgreement& agreement) {
  row[name] = json_number(agreement.value);
  row[name + "-interval-95"] = ends(agreement.interval);
  row["share-of-ceiling"] = json_number(agreement.share);
  row["share-interval-95"] = ends(agreement.share_interval);
}

Json ceiling_of(const std::string& name, const at::Tensor& actual, const at::Tensor& other,
                const PairStatistic& statistic, const Random& random) {
  if (!other.defined()) {
    return nullptr;
  }
  const auto agreement = ceilinged_agreement(other, actual, {}, statistic, random);
  return {{name, json_number(agreement.value)}, {name + "-interval-95", ends(agreement.interval)}};
}

std::optional<Json> Table::lds() {
  const auto subsets = line_.get<std::int64_t>("subsets");
  const auto fraction = line_.get<double>("fraction");
  const auto weights = subset_weights(subsets, data().size(), fraction, random().stream("subsets"));
  if (planned(missing(weights), all_seeds(subsets), "subsets")) {
    return std::nullopt;
  }
  const auto methods = scored();
  const auto trained = train(weights, seeds());
  const auto inside = weights.gt(0).to(at::kDouble);
  const auto& actual = trained[0].measurements;
  const auto other = trained.size() > 1 ? trained[1].measurements : at::Tensor();
  const auto draws = random().stream("bootstrap");
  Json out{{"subsets", subsets}, {"fraction", fraction}};
  out.update(found(trained));
  out["ceiling"] = ceiling_of("lds", actual, other, spearman, draws);
  for (const auto& method : methods) {
    Json row{{"method", method.method}};
    add_agreement(row, "lds",
                  ceilinged_agreement(summed_scores(method.scores, inside), actual, other, spearman, draws));
    row["seconds"] = method.seconds;
    out["table"].push_back(std::move(row));
  }
  return out;
}

/// Rows spread over the order of the methods' mean ranks, so that none of them has picked its own.
at::Tensor spread_rows(const std::vector<at::Tensor>& scores, std::int64_t count) {
  TensorList ranks;
  for (const auto& of_method : scores) {
    ranks.push_back(of_method.mean(0).argsort().argsort().to(at::kDouble));
  }
  return rows_across_scores(at::stack(ranks), count);
}

std::optional<Json> Table::left_out() {
  const auto n = data().size();
  const auto examples = std::min(n, line_.get<std::int64_t>("examples"));
  const auto all_ones = at::ones({1, n}, at::kDouble);
  if (line_.flag("plan") || !line_.given("examples")) {  // which examples is not known before they are scored
    const auto some = at::cat({all_ones, leave_one_out_weights(at::arange(examples), n)});
    if (planned(missing(some), all_seeds(some.size(0)), "examples")) {
      return std::nullopt;
    }
  }
  const auto methods = scored();
  std::vector<at::Tensor> spread;
  for (const auto& method : methods) {
    if (method.method != "random") {
      spread.push_back(method.scores);
    }
  }
  const auto rows = spread_rows(spread, examples);
  const auto trained = train(at::cat({all_ones, leave_one_out_weights(rows, n)}), seeds());
  check_repeats(trained[0].measurements[0]);
  const auto changes = [&](const Retraining& truth) {
    return (truth.measurements.narrow(0, 1, rows.size(0)) - truth.measurements[0]).contiguous();  // [E, Q]
  };
  const auto actual = changes(trained[0]);
  const auto other = trained.size() > 1 ? changes(trained[1]) : at::Tensor();
  const auto draws = random().stream("bootstrap");
  Json out{{"examples", rows.size(0)}};
  out.update(found(trained));
  out["ceiling"] = ceiling_of("pearson", actual, other, pearson, draws);
  for (const auto& method : methods) {
    const auto predicted = (method.scores.index_select(1, rows).t() / -static_cast<double>(n)).contiguous();
    Json row{{"method", method.method}};
    add_agreement(row, "pearson", ceilinged_agreement(predicted, actual, other, pearson, draws));
    row["spearman"] = json_number(mean_over_queries(predicted, actual, spearman));
    row["slope"] =
        method.sizes ? json_number(least_squares(to_numbers(predicted), to_numbers(actual)).slope) : Json(nullptr);
    row["seconds"] = method.seconds;
    out["table"].push_back(std::move(row));
  }
  return out;
}

std::optional<Json> Table::removal() {
  const auto n = data().size();
  const auto percents = list_of(line_, "remove", 1e-6, 99.99);
  const auto count = [&](double percent) {
    return std::clamp<std::int64_t>(std::llround(percent / 100 * static_cast<double>(n)), 1, n - 1);
  };
  std::vector<at::Tensor> weights{at::ones({1, n}, at::kDouble)};
  auto draws = random().stream("removals");
  for (std::int64_t r = 0; r < kRandomRemovals; ++r) {
    const auto order = draws.permutation(n);
    for (const double percent : percents) {
      weights.push_back(removal_weights(order.narrow(0, 0, count(percent)), n));
    }
  }
  const auto of_methods = static_cast<std::int64_t>((methods_.size() - 1) * percents.size());  // all but random
  if (planned(trainings_->missing(at::cat(weights), 0) + of_methods,
              static_cast<std::int64_t>(weights.size()) + of_methods, "remove")) {
    return std::nullopt;
  }
  const auto methods = scored();
  std::vector<Scored> ranked;
  std::copy_if(methods.begin(), methods.end(), std::back_inserter(ranked),
               [](const auto& method) { return method.method != "random"; });
  for (const auto& method : ranked) {
    const auto order = (method.scores.mean(0) * outcome_sign(measurement_)).argsort(/*stable=*/true, 0, true);
    for (const double percent : percents) {
      weights.push_back(removal_weights(order.narrow(0, 0, count(percent)), n));
    }
  }
  const auto all = at::cat(weights);
  const auto trained = train(all, {0});
  check_repeats(trained[0].measurements[0]);
  // how much worse the outcome becomes, [M, Q]
  const auto worse = (trained[0].measurements.narrow(0, 1, all.size(0) - 1) - trained[0].measurements[0]) *
                     -outcome_sign(measurement_);
  const auto bootstrap_draws = random().stream("bootstrap");
  Json out = found(trained);
  out["removed-percent"] = percents;
  const auto P = static_cast<std::int64_t>(percents.size());
  const auto add = [&](const std::string& name, const std::function<at::Tensor(std::int64_t)>& change, Json seconds) {
    Json row{{"method", name}, {"removals", Json::array()}};
    for (std::int64_t p = 0; p < P; ++p) {
      const auto mean = mean_interval(change(p), bootstrap_draws);
      row["removals"].push_back({{"percent", percents[static_cast<std::size_t>(p)]},
                                 {"worse-by", mean.mean},
                                 {"interval-95", ends(mean.interval)}});
    }
    row["seconds"] = std::move(seconds);
    out["table"].push_back(std::move(row));
  };
  for (std::size_t m = 0; m < ranked.size(); ++m) {
    const auto first = P * (kRandomRemovals + static_cast<std::int64_t>(m));
    add(
        ranked[m].method, [&](std::int64_t p) { return worse[first + p]; }, ranked[m].seconds);
  }
  add(
      "random", [&](std::int64_t p) { return worse.slice(0, p, P * kRandomRemovals, P).mean(0); }, 0.0);
  return out;
}

std::optional<Json> Table::mislabelled() {
  const auto fraction = line_.given("fraction") ? line_.get<double>("fraction") : 0.1;
  const Chain before(chain_.begin(), chain_.begin() + static_cast<std::ptrdiff_t>(stage_));
  const auto begun = trainings_->begin(stage_, before);
  auto noisy = mislabel(begun, fraction, random().stream("labels"));
  if (line_.flag("plan")) {
    const auto one = trainings_->time(20);
    end_progress();
    say("1 training of {}: {}about {}\n", begun.name, std::isnan(one.at_most) ? "more than " : "",
        duration_words(std::isnan(one.at_most) ? one.seconds : one.at_most));
    return std::nullopt;
  }
  const auto start = Clock::now();
  TrainingSummary summary;
  {
    const Progress named = [&](ProgressEvent event) {
      event.phase += " " + noisy.stage.name + " with wrong labels";
      report(progress_, event);
    };
    summary = whence::train(
        noisy.stage,
        from_ == "start" ? Random(pipeline_.seed()).stream("training of stage " + noisy.stage.name) : random(), named);
  }
  one_training_ = seconds_since(start);
  auto chain = before;
  chain.push_back(noisy.stage);
  const bool last = stage_ + 1 == chain_.size();
  const auto flipped = to_numbers(noisy.flipped);
  const std::vector<double> shares{0.05, 0.1, 0.2, 0.3, 0.5};
  Json out{{"fraction", fraction},
           {"mislabelled", noisy.flipped.sum().item<std::int64_t>()},
           {"examples", data().size()},
           {"train-from", from_},
           {"seconds-a-training", one_training_},
           {"largest-gradient-norm", summary.gradient_norm},
           {"unconverged-trainings", summary.converged ? 0 : 1}};
  const auto add = [&](const std::string& name, const std::string& by, const at::Tensor& suspicion, double seconds) {
    const PairStatistic statistic = [](std::span<const double> x, std::span<const double> y) {
      std::vector<bool> positive;
      std::transform(y.begin(), y.end(), std::back_inserter(positive), [](double v) { return v > 0; });
      return auroc(x, positive);
    };
    const auto x = to_numbers(suspicion);
    auto draws = random().stream("bootstrap");
    Json row{{"method", name},
             {"by", by},
             {"auroc", json_number(statistic(x, flipped))},
             {"auroc-interval-95", ends(bootstrap(x, flipped, statistic, draws, 200))},
             {"found", Json::array()},
             {"seconds", seconds}};
    for (const double share : shares) {
      row["found"].push_back({{"inspected", share}, {"found", found_among_first(suspicion, noisy.flipped, share)}});
    }
    out["table"].push_back(std::move(row));
  };
  for (const auto& method : methods_) {
    report(progress_, {"score by " + method.name, 0, 0, ""});
    const auto began = Clock::now();
    const auto self = [&](bool indefinite) {
      auto inverse = problem(method, chain, 1, indefinite);
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
    };
    at::Tensor suspicion;
    std::string by = "self";
    if (method.attributor) {
      try {
        suspicion = -despite_indefinite(method, self);
      } catch (const InvalidArgument&) {  // a method to which every example is the same to itself
      }
    }
    if (!suspicion.defined() && last) {
      by = "queries";
      suspicion = scores(method, chain).mean(0) * -outcome_sign(measurement_);
    }
    end_progress();
    if (suspicion.defined()) {
      add(method.name, by, suspicion, seconds_since(began));
    }
  }
  const auto began = Clock::now();
  const auto losses = measure_all(Measurement::kLoss, noisy.stage, noisy.stage.objective.data());
  add("loss", "self", losses, seconds_since(began));
  return out;
}

std::optional<Json> Table::recall() {
  const auto column = line_.text("source-column");
  const auto file = read_pipeline_file(pipeline_.path());
  const auto folder = pipeline_.path().parent_path();
  const auto split = record_.json()["options"]["queries"].get<std::string>();
  const auto of_examples = read_example_column(file.stages[stage_].train, folder, column, data());
  const auto of_queries = read_example_column(file.queries.at(split), folder, column, queries_);
  std::vector<at::Tensor> sources;
  std::vector<std::int64_t> kept;
  for (std::size_t q = 0; q < of_queries.size(); ++q) {
    auto is = at::zeros({data().size()}, at::kBool);
    for (std::size_t i = 0; i < of_examples.size(); ++i) {
      if (of_examples[i] == of_queries[q]) {
        is[static_cast<std::int64_t>(i)] = true;
      }
    }
    if (is.any().item<bool>()) {
      sources.push_back(is);
      kept.push_back(static_cast<std::int64_t>(q));
    }
  }
  if (kept.empty()) {
    throw InvalidArgument(fmt::format("--source-column {}: no example of {} has what it says of a query, as {:?}",
                                      column, chain_[stage_].name, of_queries.front()));
  }
  if (line_.flag("plan")) {
    say("no trainings: {} methods, {} queries with sources\n", methods_.size(), kept.size());
    return std::nullopt;
  }
  const std::vector<std::int64_t> ks{1, 5, 10, 50};
  Json out{{"source-column", column}, {"queries-with-sources", kept.size()}};
  for (const auto& method : scored()) {
    std::vector<double> ranks;
    std::vector<double> recalls(ks.size(), 0.0);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const auto of = recall_of(method.scores[kept[i]] * outcome_sign(measurement_), sources[i], ks);
      ranks.push_back(of.reciprocal_rank);
      for (std::size_t k = 0; k < ks.size(); ++k) {
        recalls[k] += of.recall[k] / static_cast<double>(kept.size());
      }
    }
    const auto mrr = mean_interval(at::tensor(ranks, at::kDouble), random().stream("bootstrap"));
    Json row{{"method", method.method}, {"mrr", mrr.mean}, {"mrr-interval-95", ends(mrr.interval)}};
    for (std::size_t k = 0; k < ks.size(); ++k) {
      row[fmt::format("recall@{}", ks[k])] = recalls[k];
    }
    row["seconds"] = method.seconds;
    out["table"].push_back(std::move(row));
  }
  return out;
}

int Table::run() {
  const std::vector<std::string> names{"evaluation.json"};
  std::optional<ResultWriter> writer;
  if (!line_.flag("plan")) {
    folder_ = folder();
    writer.emplace(folder_, names);
    check_folder(*writer);
    check_spares_inputs(record_.view(), folder_, names);
  } else if (line_.has("out")) {
    folder_ = line_.text("out");
  } else {
    folder_ = temporary_.emplace().path();
  }
  const auto* earlier = writer ? writer->finished(record_.key(), names) : nullptr;
  Json result;
  if (earlier != nullptr) {
    result = read_json<Json>(earlier->file(names.front()));
  } else {
    trainings_ = std::make_unique<Trainings>(Trainings::What{pipeline_, chain_, stage_, queries_, measurement_,
                                                             line_.has("optimizer") ? line_.text("optimizer") : "",
                                                             from_ == "start", folder_ / "bank"});
    const auto made = against_ == "lds"        ? lds()
                      : against_ == "removal"  ? removal()
                      : against_ == "mislabel" ? mislabelled()
                      : against_ == "recall"   ? recall()
                                               : left_out();
    if (!made) {
      return kDone;
    }
    result = Json{{"against", against_},
                  {"stage", chain_[stage_].name},
                  {"split", record_.json()["options"]["queries"]},
                  {"queries", queries_.size()},
                  {"measurement", to_string(measurement_)},
                  {"seed", pipeline_.seed()}};
    result.update(*made);
    result["key"] = record_.key();
    write_text(writer->place(names.front()), json_text(result, 2) + "\n");
    writer->publish(record_.key(), record_.json());
  }
  line_.flag("json") ? say("{}\n", Ready{json_text(result, 2)}) : print_comparison(result);
  return record_.exit_status(line_.flag("strict"));
}

}  // namespace

std::vector<std::string> evaluation_kinds() { return kKinds; }

void add_table_options(CommandLine& line) {
  line.add()  //
      ("methods", po::value<std::string>(),
       "compare these, in one table: attribution methods, or what influence is taken by, a curvature, a solver, a "
       "response, joined by +: influence,ekfac,gauss-newton+cg,trak; default: influence")                      //
      ("queries", po::value<std::string>(), "of --methods: the split [queries.SPLIT]; default: the only one")  //
      ("limit-queries", po::value<std::int64_t>()->default_value(0),
       "of --methods: the first so many queries; 0: all")  //
      ("measurement", po::value<std::string>()->default_value("loss"),
       "of --methods: loss, log-probability, logit or margin of the query")  //
      ("train-from", po::value<std::string>()->default_value("start"),
       "of --methods: trainings begin where the stage's did (start), or go on from its end (checkpoint)")  //
      ("no-ceiling", po::bool_switch(),
       "of --methods: leave out the trainings with another seed, which show what retraining itself reaches")  //
      ("remove", po::value<std::string>()->default_value("5,10,20"),
       "percents of the examples that speak most for the queries to leave out (removal)")  //
      ("source-column", po::value<std::string>(),
       "the column that has the same for a query and the examples that it comes from (recall)");
}

int evaluate_table(const CommandLine& line) { return Table(line).run(); }

}  // namespace whence::cli
