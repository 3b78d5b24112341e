// `whence icl`: which demonstrations of a prompt help, which hurt, which are mislabelled?
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "cli.h"
#include "icl_result.h"
#include "icl_uses.h"
#include "run_record.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/icl/prompt_reader.h"
#include "whence/icl/ridge_view.h"
#include "whence/icl/state_kernel.h"
#include "whence/models/checkpoint.h"
#include "whence/models/model.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

using Json = nlohmann::ordered_json;

void add_options(CommandLine& line) {
  line.add()                                                                                 //
      ("model", po::value<std::string>(), "a causal language model in Hugging Face layout")  //
      ("task", po::value<std::string>(),
       "a prompt (JSON): {\"demonstrations\": [{\"input\", \"output\"}, …], \"queries\": [{\"input\", \"output\"}, …], "
       "\"template\": \"Input: {input}\\nOutput: {output}\", \"separator\", \"validation\"}")  //
      ("tasks", po::value<std::string>(),
       "many: a folder of such files, or a .jsonl with one a line; goes on where it was interrupted")  //
      ("out", po::value<std::string>(), "the result directory; with --tasks a folder in it for each")  //
      ("method", po::value<std::string>()->default_value("ridge"), "`whence methods icl`")             //
      ("layers", po::value<std::string>()->default_value("auto"),
       "3,7 or all; 0: the embeddings, k: after block k; auto: the one that foretells the outputs of the task's "
       "\"validation\" best or, without one, those at one third and two thirds of the depth")                  //
      ("lambda", po::value<double>(), "of the ridge regression [1]")                                           //
      ("self-lambda", po::value<double>(), "in the curvature of the self scores [as lambda]")                  //
      ("kernel", po::value<std::string>(), "how alike hidden states are: `whence methods icl-kernels` [dot]")  //
      ("projection", po::value<std::int64_t>(),
       "dimensions of a random projection of the hidden states; 0: none [0]")  //
      ("position", po::value<std::string>()->default_value("column"),
       "where demonstrations are read: column, the token before the output; label, the output's first; mean, the "
       "mean over the tokens before the output; auto: column or, where it foretells \"validation\" better, mean")  //
      ("targets", po::value<std::string>()->default_value("auto"),
       "what is regressed on: one-hot outputs, the embedding of outputs, or auto: one-hot where outputs repeat")  //
      ("embedder", po::value<std::string>(),
       "another model's directory for --method embedding; default: the token embeddings of the model itself")  //
      ("by-layer", po::bool_switch(), "also each layer's own scores")                                          //
      ("verify", po::bool_switch(), "run the model without each demonstration, and compare with the scores");
}

struct LoadedModel {
  std::shared_ptr<Model> model;
  const LanguageModel* language;
  ParameterSet theta;
  Tokenizer tokenizer;
};

/// `classes` > 0: an encoder, whose head for words need not be there.
LoadedModel load_model(const fs::path& path, const RunOptions& options, std::int64_t classes = 0) {
  const std::shared_ptr<Model> model = open_model_folder(path);
  if (checkpoint_files(path).empty()) {
    throw DataError(fmt::format("{}: no weights, expected model.safetensors or its index", path.string()));
  }
  Random random(0);
  auto theta = model->initial({}, classes, random).to(options.dtype, options.device);
  const auto* language = dynamic_cast<const LanguageModel*>(model.get());
  Tokenizer tokenizer(path);
  for (const auto* notes : {&language->notes(), &tokenizer.notes()}) {
    for (const auto& note : *notes) {
      options.note(note);
    }
  }
  return {model, language, std::move(theta), std::move(tokenizer)};
}

RidgeOptions ridge_options(const CommandLine& line, std::string_view given) {
  auto options = parse<RidgeOptions>(given, "ridge");
  if (line.has("lambda")) {
    options.lambda = line.get<double>("lambda");
  }
  if (line.has("self-lambda")) {
    options.self_lambda = line.get<double>("self-lambda");
  }
  if (line.has("projection")) {
    options.projection = line.get<std::int64_t>("projection");
  }
  if (line.has("kernel")) {
    options.kernel = line.text("kernel");
  }
  if (line.has("seed")) {
    options.seed = static_cast<std::int64_t>(line.get<std::uint64_t>("seed"));
  }
  validate(options, "ridge");
  create<StateKernel>(options.kernel);
  return options;
}

std::vector<std::int64_t> every_layer(std::int64_t blocks) {
  std::vector<std::int64_t> layers(static_cast<std::size_t>(blocks) + 1);
  std::iota(layers.begin(), layers.end(), std::int64_t{0});
  return layers;
}

/// Empty: to be chosen.
std::vector<std::int64_t> parse_layers(const std::string& text, std::int64_t blocks) {
  if (text == "auto") {
    return {};
  }
  if (text == "all") {
    return every_layer(blocks);
  }
  std::vector<std::int64_t> layers;
  for (std::string_view rest = text; !rest.empty();) {
    const auto item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    std::int64_t layer = -1;
    if (!detail::read_option(item, layer) || layer < 0 || layer > blocks) {
      throw UsageError(
          fmt::format("--layers {}: \"{}\", expected auto, all, or numbers from 0 to {}", text, item, blocks));
    }
    layers.push_back(layer);
  }
  if (layers.empty() || std::set<std::int64_t>(layers.begin(), layers.end()).size() != layers.size()) {
    throw UsageError(fmt::format("--layers {}: expected numbers from 0 to {} that differ", text, blocks));
  }
  return layers;
}

IclScores sum_of(const std::vector<IclScores>& layers) {
  auto total = layers.front();
  for (std::size_t l = 1; l < layers.size(); ++l) {
    total = {total.test + layers[l].test, total.self + layers[l].self, total.leave_one_out + layers[l].leave_one_out,
             total.prediction + layers[l].prediction};
  }
  return total;
}

/// One run of the command: what all tasks share.
class IclRun {
 public:
  explicit IclRun(const CommandLine& line)
      : line_(line),
        record_(line, line.has("seed") ? line.get<std::uint64_t>("seed") : 0),
        progress_(terminal_progress(line.flag("quiet"))),
        options_(line.run_options()),
        many_(line.has("tasks")) {
    if (many_ == line.has("task")) {
      throw UsageError("one of --task FILE and --tasks PATH is needed");
    }
    if (many_) {
      line.required("out");
    }
    const auto spec = line.text("method");
    method_ = find_method<IclMethod>(spec).first->name;
    if (method_ == "ridge") {
      ridge_ = ridge_options(line, find_method<IclMethod>(spec).second);
    } else {
      for (const char* flag : {"lambda", "self-lambda", "kernel", "projection", "by-layer", "reorder", "select"}) {
        if (line.given(flag) && (std::string(flag) != "by-layer" || line.flag(flag))) {
          throw UsageError(fmt::format("--{} is for --method ridge, not {}", flag, method_));
        }
      }
      create<IclMethod>(spec);
    }
    const auto position = line.text("position");
    positions_ = position == "auto" ? std::vector{ReadingPosition::kColumn, ReadingPosition::kMean}
                                    : std::vector{parse_reading_position(position)};
    reading_.position = positions_.front();
    reading_.targets = parse_target_view(line.text("targets"));
    uses_.emplace(
        line, method_, ridge_,
        [this](const PromptTask& task, const ReadingOptions& options) { return reader(task, options); }, progress_);
    const fs::path path = many_ ? line.text("tasks") : line.text("task");
    tasks_ = read_tasks(path);
    if (!many_ && tasks_.size() != 1) {
      throw InvalidArgument(
          fmt::format("--task {}: {} tasks, expected one (--tasks takes many)", path.string(), tasks_.size()));
    }
    const fs::path model = line.required("model");
    model_.emplace(load_model(model, options_));
    layers_ = parse_layers(line.text("layers"), model_->language->blocks());
    reading_.attention = method_ == "attention";
    reading_.surprisal = method_ == "surprisal";
    reading_.batch_size = options_.batch_size;
    if (line.has("embedder")) {
      embedder_.emplace(load_model(line.text("embedder"), options_, 2));
    }
    record();
  }

  int run() {
    std::int64_t done = 0;
    for (const auto& task : tasks_) {
      report(
          progress_,
          {.phase = "tasks", .done = done++, .total = static_cast<std::int64_t>(tasks_.size()), .detail = task.name});
      explain(task);
    }
    end_progress();
    if (line_.has("out")) {
      record_.write(folder_ / "run.json");
    }
    if (line_.flag("json")) {
      fmt::print("{}\n", shown_.dump());
    }
    return record_.exit_status(line_.flag("strict"));
  }

 private:
  void record() {
    auto& options = record_.json()["options"];
    record_.json()["tasks"] = fs::absolute(line_.text(many_ ? "tasks" : "task")).string();
    options["model"] = fs::absolute(line_.text("model")).string();
    options["method"] = method_;
    if (method_ == "ridge") {
      for (const auto& option : describe(ridge_)) {
        options[option.name] = option.value;
      }
    } else {
      options["method"] = resolved_spec<IclMethod>(line_.text("method"));
    }
    for (const char* name : {"layers", "position", "targets"}) {
      options[name] = line_.text(name);
    }
    for (const char* name : {"by-layer", "verify", "detect-noise"}) {
      options[name] = line_.flag(name);
    }
    for (const char* name : {"curate", "select", "orders"}) {
      if (line_.has(name)) {
        options[name] = line_.get<std::int64_t>(name);
      }
    }
    for (const char* name : {"reorder", "pool", "embedder"}) {
      if (line_.has(name)) {
        options[name] = line_.text(name);
      }
    }
    auto files = model_files(line_.text("model"));
    if (line_.has("embedder")) {
      const auto more = model_files(line_.text("embedder"));
      files.insert(files.end(), more.begin(), more.end());
    }
    if (line_.has("pool")) {
      files.emplace_back(line_.text("pool"));
    }
    if (line_.has("out")) {  // digests take a second for each gigabyte
      record_.add_inputs(files);
      folder_ = line_.text("out");
      fs::create_directories(folder_);
    }
  }

  static std::vector<fs::path> model_files(const fs::path& folder) {
    auto files = checkpoint_files(folder);
    for (const char* name : {"config.json", "tokenizer.json"}) {
      files.push_back(folder / name);
    }
    return files;
  }

  PromptReader reader(const PromptTask& task, const ReadingOptions& options) const {
    return {*model_->language, model_->theta, model_->tokenizer, task, options};
  }

  /// How a task is read: as was said or, where it has a validation set, from the layer and the position whose
  /// regression foretells that best.
  ReadingOptions reading_of(const PromptTask& task) const {
    auto best = reading_;
    const auto blocks = model_->language->blocks();
    const auto third = std::max<std::int64_t>(1, blocks / 3), two_thirds = std::max<std::int64_t>(1, 2 * blocks / 3);
    best.layers = !layers_.empty()      ? layers_
                  : third == two_thirds ? std::vector{third}
                                        : std::vector{third, two_thirds};
    const bool given = !layers_.empty() && positions_.size() == 1;
    if (given || task.validation.empty() || method_ != "ridge") {
      return best;
    }
    auto asked = task;
    asked.queries = task.validation;
    double least = INFINITY;
    for (const auto position : positions_) {
      auto options = reading_;
      options.position = position;
      options.layers = layers_.empty() ? every_layer(blocks) : layers_;
      const auto reading = reader(asked, options).read();
      const auto scores = ridge_scores_by_layer(reading.task, ridge_);
      const auto together = layers_.empty() ? 1 : scores.size();  // layers that are chosen or not as one
      for (std::size_t l = 0; l < scores.size(); l += together) {
        double loss = 0;
        for (auto k = l; k < l + together; ++k) {
          loss += ridge_loss(reading.task, scores[k]);
        }
        if (loss < least) {
          least = loss;
          const auto first = options.layers.begin() + static_cast<std::ptrdiff_t>(l);
          best.layers.assign(first, first + static_cast<std::ptrdiff_t>(together));
          best.position = position;
        }
      }
    }
    return best;
  }

  IclScores scores_of(PromptReading& reading, const PromptTask& task, std::vector<IclScores>& by_layer) const {
    if (method_ == "ridge") {
      by_layer = ridge_scores_by_layer(reading.task, ridge_);
      return sum_of(by_layer);
    }
    if (method_ == "embedding") {
      const auto& by = embedder_ ? *embedder_ : *model_;
      const auto embed = [&](const std::vector<Exchange>& exchanges) {
        std::vector<std::string> texts;
        for (const auto& exchange : exchanges) {
          texts.push_back(exchange.input);
        }
        return embed_texts(*by.language, by.theta, by.tokenizer, texts, embedder_ ? by.language->blocks() : 0);
      };
      reading.task.embeddings = embed(task.demonstrations);
      reading.task.query_embeddings = embed(task.queries);
    }
    return create<IclMethod>(line_.text("method"))->score(reading.task);
  }

  void explain(const PromptTask& task) {
    const auto folder = many_ ? folder_ / task.name : folder_;
    const auto said = record_.key() + to_json(task).dump();
    const auto key = digest(std::as_bytes(std::span(said)));
    const auto place = folder / "icl.json";
    if (line_.has("out") && fs::exists(place)) {
      const auto found = Json::parse(read_text(place), nullptr, /*allow_exceptions=*/false);
      if (found.is_object() && found.value("key", "") == key) {
        show(found);
        return;
      }
    }
    const auto told = record_.json()["warnings"].size();
    warn_of(task);
    const auto options = reading_of(task);
    auto read = reader(task, options);
    auto reading = read.read();
    warn_of(task, reading);
    IclResult result{.task = task, .reading = reading, .options = options, .scores = {}};
    result.scores = scores_of(reading, task, result.by_layer);
    if (line_.flag("verify")) {
      result.removals = read.remove_each(reading, progress_);
    }
    auto json = icl_json(result, line_.flag("by-layer"));
    json["options"] = record_.json()["options"];
    const auto& warnings = record_.json()["warnings"];
    json["warnings"] = Json(std::vector<Json>(warnings.begin() + static_cast<std::ptrdiff_t>(told), warnings.end()));
    json["key"] = key;
    if (line_.has("out")) {
      fs::create_directories(folder);
    }
    uses_->apply(result, read, line_.has("out") ? std::optional(folder) : std::nullopt, json);
    if (line_.has("out")) {
      write_text(place, json.dump(1) + "\n");
    }
    show(json);
  }

  void warn_of(const PromptTask& task) {
    std::map<std::pair<std::string, std::string>, std::size_t> seen;
    std::size_t repeats = 0;
    std::pair<std::size_t, std::size_t> first;
    for (std::size_t i = 0; i < task.demonstrations.size(); ++i) {
      const auto& demonstration = task.demonstrations[i];
      const auto [found, fresh] = seen.emplace(std::pair(demonstration.input, *demonstration.output), i);
      if (!fresh && repeats++ == 0) {
        first = {found->second, i};
      }
    }
    if (repeats > 0) {
      record_.warning(fmt::format("task {}: demonstrations {} and {} are the same{}: such share what either does",
                                  task.name, first.first, first.second,
                                  repeats > 1 ? fmt::format(", and {} more repeat others", repeats - 1) : ""));
    }
  }

  void warn_of(const PromptTask& task, const PromptReading& reading) {
    if (reading.outputs.size() == 1) {
      record_.warning(fmt::format(
          "task {}: every demonstration's output is \"{}\": no score can tell them apart by what they teach", task.name,
          reading.outputs[0]));
    }
    if (reading.task.targets.defined()) {
      return;
    }
    for (std::size_t j = 0; j < task.queries.size(); ++j) {
      if (reading.task.query_labels[static_cast<std::int64_t>(j)].item<std::int64_t>() < 0) {
        record_.warning(fmt::format("task {}: query {} has no scores: its {}", task.name, j,
                                    unknown_name("output", reading.explained[j], reading.outputs)));
      }
    }
  }

  void show(const Json& json) {
    end_progress();
    if (line_.flag("json")) {
      if (many_) {
        shown_.push_back({{"task", json["task"]}, {"out", (folder_ / json["task"].get<std::string>()).string()}});
      } else {
        shown_ = json;
      }
    } else if (many_) {
      fmt::print("{}: {} demonstrations, {} queries\n", json["task"].get<std::string>(), json["demonstrations"].size(),
                 json["queries"].size());
    } else {
      fmt::print("{}", icl_text(json));
    }
  }

  const CommandLine& line_;
  RunRecord record_;
  Progress progress_;
  RunOptions options_;
  bool many_;
  std::string method_;
  RidgeOptions ridge_;
  ReadingOptions reading_;
  std::vector<std::int64_t> layers_;        // empty: to be chosen
  std::vector<ReadingPosition> positions_;  // to choose from
  std::vector<PromptTask> tasks_;
  std::optional<LoadedModel> model_, embedder_;
  std::optional<IclUses> uses_;
  fs::path folder_;
  Json shown_ = Json::array();
};

}  // namespace

int icl(const std::vector<std::string>& arguments) {
  CommandLine line("icl", "--model DIR --task FILE [--out DIR]",
                   "Scores the demonstrations of a prompt for what a model answers to its queries, from one forward "
                   "pass: influence on the ridge regression that the hidden states imply.");
  add_options(line);
  IclUses::add_options(line);
  if (!line.parse(arguments)) {
    return kDone;
  }
  return IclRun(line).run();
}

}  // namespace whence::cli
