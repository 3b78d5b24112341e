// `whence icl`: which demonstrations of a prompt help, which hurt, which are mislabelled?
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "cli.h"
#include "icl_doubts.h"
#include "icl_result.h"
#include "icl_settings.h"
#include "icl_text.h"
#include "icl_uses.h"
#include "json.h"
#include "result.h"
#include "run_record.h"
#include "say.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/icl/prompt_reader.h"
#include "whence/icl/ridge_view.h"
#include "whence/icl/text_embedding.h"
#include "whence/models/text_model.h"
#include "whence/store/result_folder.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace po = boost::program_options;
namespace {

void add_options(CommandLine& line) {
  line.add()                                                                                 //
      ("model", po::value<std::string>(), "a causal language model in Hugging Face layout")  //
      ("task", po::value<std::string>(),
       "a prompt (JSON): {\"demonstrations\": [{\"input\", \"output\"}, …], \"queries\": [{\"input\", \"output\"}, …], "
       "\"template\": \"Input: {input}\\nOutput: {output}\", \"separator\", \"validation\"}")  //
      ("tasks", po::value<std::string>(),
       "many: a folder of such files, or a .jsonl with one a line; goes on where it was interrupted")  //
      ("out", po::value<std::string>(), "the result directory; with --tasks a folder in it for each");
  IclSettings::add_options(line);
  line.add()  //
      ("embedder", po::value<std::string>(),
       "another model's directory for --method embedding; default: the token embeddings of the model itself")  //
      ("by-layer", po::bool_switch(), "also each layer's own scores")                                          //
      ("verify", po::bool_switch(), "run the model without each demonstration, and compare with the scores");
}

/// `classes` > 0: an encoder, whose head for words need not be there.
TextModel load_model(const fs::path& path, const RunOptions& options, std::int64_t classes = 0) {
  auto model = read_text_model(path, options.dtype, options.device, classes);
  for (const auto* notes : {&model.language->notes(), &model.tokenizer.notes()}) {
    for (const auto& note : *notes) {
      options.note(note);
    }
  }
  return model;
}

/// One run of the command: what all tasks share.
class IclRun {
 public:
  explicit IclRun(const CommandLine& line)
      : line_(line),
        record_(line, line.run_options().seed.value_or(0)),
        progress_(terminal_progress(line.flag("quiet"))),
        options_(line.run_options()),
        many_(line.has("tasks")),
        settings_(line) {
    if (many_ == line.has("task")) {
      throw UsageError("one of --task FILE and --tasks PATH is needed");
    }
    if (many_) {
      line.required("out");
    }
    uses_.emplace(
        line, settings_,
        [this](const PromptTask& task, const ReadingOptions& options) { return reader(task, options); }, progress_);
    const fs::path path = many_ ? line.text("tasks") : line.text("task");
    tasks_ = read_tasks(path);
    if (!many_ && tasks_.size() != 1) {
      throw InvalidArgument(
          fmt::format("--task {}: {} tasks, expected one (--tasks takes many)", path.string(), tasks_.size()));
    }
    const fs::path model = line.required("model");
    model_.emplace(load_model(model, options_));
    layers_ = settings_.layers(model_->language->blocks());
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
    if (many_) {
      record_.phase("");
      out_->publish(record_.key(), record_.json());
    }
    if (line_.flag("json")) {
      say("{}\n", Ready{shown_.dump()});
    }
    return record_.exit_status(line_.flag("strict"));
  }

 private:
  void record() {
    auto& options = record_.json()["options"];
    record_.json()["tasks"] = fs::absolute(line_.text(many_ ? "tasks" : "task")).string();
    options["model"] = fs::absolute(line_.text("model")).string();
    const auto settings = settings_.json();
    for (const auto& [name, value] : settings.items()) {
      options[name] = value;
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
    auto files = model_files("model");
    if (line_.has("embedder")) {
      const auto more = model_files("embedder");
      files.insert(files.end(), more.begin(), more.end());
    }
    if (line_.has("pool")) {
      files.emplace_back(line_.text("pool"));
    }
    if (line_.has("out")) {  // digests take a second for each gigabyte
      record_.add_inputs(files);
      folder_ = line_.text("out");
      auto read = record_.json();
      read["inputs"][read["tasks"].get<std::string>()] = "";
      check_spares_inputs({read, "run.json"}, folder_, outputs());
      out_.emplace(folder_, many_ ? std::vector<std::string>() : outputs());
      check_kind(*out_, {line_.command()});
    }
  }

  /// Of a task.
  static std::vector<std::string> outputs() {
    std::vector<std::string> names{"icl.json", "suspects.json"};
    for (const char* prompt : {"kept", "curated", "reordered", "selected"}) {
      names.push_back(fmt::format("{}.json", prompt));
      names.push_back(fmt::format("{}.txt", prompt));
    }
    return names;
  }

  std::vector<fs::path> model_files(const std::string& flag) const {
    const fs::path folder = line_.text(flag);
    return text_model_files(folder, folder / "tokenizer.json");
  }

  PromptReader reader(const PromptTask& task, const ReadingOptions& options) const { return {*model_, task, options}; }

  /// How a task is read: as was said or, where it has a validation set, from the layer and the position whose
  /// regression foretells that best.
  ReadingOptions reading_of(const PromptTask& task) const {
    const auto& positions = settings_.positions();
    const auto blocks = model_->language->blocks();
    auto best = settings_.reading();
    best.batch_size = options_.batch_size;
    best.surprisal = best.surprisal || settings_.self_method(task).needs().surprisal;
    best.layers = layers_.empty() ? settings_.usual_layers(blocks) : layers_;
    const bool given = !layers_.empty() && positions.size() == 1;
    if (given || task.validation.empty() || settings_.method().regression() == nullptr) {
      return best;
    }
    auto asked = task;
    asked.queries = task.validation;
    double least = INFINITY;
    for (const auto position : positions) {
      auto options = best;
      options.surprisal = false;
      options.position = position;
      options.layers = layers_.empty() ? every_layer(blocks) : layers_;
      const auto reading = reader(asked, options).read();
      const auto scores = ridge_scores_by_layer(reading.task, settings_.ridge());
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
    if (settings_.method().regression() != nullptr) {
      by_layer = ridge_scores_by_layer(reading.task, settings_.ridge());
      const auto of_self = ridge_scores_by_layer(reading.task, settings_.self_ridge());
      for (std::size_t l = 0; l < by_layer.size(); ++l) {
        by_layer[l].self = of_self[l].self;
        by_layer[l].foretold = of_self[l].foretold;
      }
      auto scores = sum_of_layers(by_layer);
      if (const auto& by = settings_.self_method(task); by.regression() == nullptr) {
        scores.self = by.score(reading.task).self;
      }
      return scores;
    }
    if (settings_.method().needs().embeddings) {
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
    return settings_.method().score(reading.task);
  }

  /// Mean test scores over the queries whose answer is given; undefined where there are none.
  static at::Tensor helpful(const IclResult& result) {
    const auto& task = result.reading.task;
    std::vector<std::int64_t> answered;
    for (std::size_t j = 0; j < result.task.queries.size(); ++j) {
      const auto row = static_cast<std::int64_t>(j);
      if (result.task.queries[j].output && task.query_labels[row].item<std::int64_t>() >= 0) {
        answered.push_back(row);
      }
    }
    if (answered.empty() || !result.scores.test.defined()) {
      return {};
    }
    return result.scores.test.index_select(0, at::tensor(answered, at::kLong)).mean(0);
  }

  void explain(const PromptTask& task) {
    std::optional<ResultWriter> own;
    auto* out = many_ ? &own.emplace(folder_ / task.name, outputs()) : out_ ? &*out_ : nullptr;
    if (own) {
      check_kind(*own, {line_.command()});
    }
    const auto said = record_.key() + json_text(to_json(task));
    const auto key = digest(std::as_bytes(std::span(said)));
    const auto* finished = out == nullptr ? nullptr : out->finished(key, {"icl.json"});
    const auto gone = [&](const std::string& name) {  // one that was removed is made again, with the others
      return finished->has(name) && !fs::exists(out->folder() / name);
    };
    const auto names = outputs();
    if (finished != nullptr && std::none_of(names.begin(), names.end(), gone)) {
      const auto found = JsonView::read(finished->file("icl.json"));
      for (const auto& warning : found.list("warnings")) {  // a part of the result, as is the status that they decide
        record_.warning(warning.get<std::string>());
      }
      show(found);
      return;
    }
    const auto told = record_.json()["warnings"].size();
    const auto warn = [&](const std::vector<std::string>& found) {
      for (const auto& text : found) {
        record_.warning(fmt::format("task {}: {}", task.name, text));
      }
    };
    warn(doubts_of(task));
    const auto options = reading_of(task);
    auto read = reader(task, options);
    auto reading = read.read();
    warn(doubts_of(task, reading));
    IclResult result{.task = task, .reading = reading, .options = options, .scores = {}};
    result.scores = scores_of(reading, task, result.by_layer);
    const auto& self_method = settings_.self_method(task);
    result.self_by = self_method.self_by();
    if (settings_.method().regression() != nullptr) {
      warn(doubts_of(reading.task, result.scores, settings_.ridge(), self_method.regression() != nullptr));
    }
    result.advice = self_method.advise(reading.task, result.scores, helpful(result));
    if (line_.flag("verify")) {
      result.removals = read.remove_each(reading, progress_);
    }
    auto json = icl_json(result, line_.flag("by-layer"));
    json["options"] = record_.json()["options"];
    const auto& warnings = record_.json()["warnings"];
    json["warnings"] = Json(std::vector<Json>(warnings.begin() + static_cast<std::ptrdiff_t>(told), warnings.end()));
    uses_->apply(result, read, out, json);
    if (out != nullptr) {
      write_text(out->place("icl.json"), json_text(json, 1) + "\n");
      record_.phase("");
      auto run = record_.json();
      run["warnings"] = json["warnings"];
      out->publish(key, std::move(run));
    }
    show({json, "icl.json"});
  }

  void show(const JsonView& json) {
    end_progress();
    if (line_.flag("json")) {
      if (many_) {
        shown_.push_back(
            {{"task", json["task"].json()}, {"out", (folder_ / json["task"].get<std::string>()).string()}});
      } else {
        shown_ = json.json();
      }
    } else if (many_) {
      say("{}: {} demonstrations, {} queries{}\n", json["task"].get<std::string>(), json["demonstrations"].size(),
          json["queries"].size(), json["drop"].is_null() ? "" : ", drop: " + dropped(json));
    } else {
      say("{}",
          Ready{icl_text(json, line_.has("out") ? std::optional((folder_ / "kept.json").string()) : std::nullopt)});
    }
  }

  const CommandLine& line_;
  RunRecord record_;
  Progress progress_;
  RunOptions options_;
  bool many_;
  IclSettings settings_;
  std::vector<std::int64_t> layers_;  // empty: to be chosen
  std::vector<PromptTask> tasks_;
  std::optional<TextModel> model_, embedder_;
  std::optional<IclUses> uses_;
  fs::path folder_;
  std::optional<ResultWriter> out_;  // of that folder
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
