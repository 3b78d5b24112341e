#include "whence/stages/pipeline.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/text.h"
#include "whence/data/format.h"
#include "whence/data/safetensors.h"
#include "whence/data/tokenizer.h"
#include "whence/data/training_checks.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/detail/trajectory.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

nlohmann::json to_json(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    auto out = nlohmann::json::object();
    for (const auto& [key, value] : *table) {
      out[std::string(key.str())] = to_json(value);
    }
    return out;
  }
  if (const auto* array = node.as_array()) {
    auto out = nlohmann::json::array();
    for (const auto& value : *array) {
      out.push_back(to_json(value));
    }
    return out;
  }
  if (const auto* text = node.as_string()) {
    return text->get();
  }
  if (const auto* number = node.as_integer()) {
    return number->get();
  }
  if (const auto* number = node.as_floating_point()) {
    return number->get();
  }
  if (const auto* flag = node.as_boolean()) {
    return flag->get();
  }
  std::ostringstream text;
  text << toml::node_view<const toml::node>(node);
  throw InvalidArgument(fmt::format("line {}: {} is a date or time, expected text, a number, true or false",
                                    node.source().begin.line, text.str()));
}

/// One table of the file, its keys checked against those that it may have.
class Table {
 public:
  Table(const nlohmann::json& json, std::string where, std::vector<std::string> known)
      : json_(json), where_(std::move(where)) {
    if (!json.is_object()) {
      throw InvalidArgument(fmt::format("{}: expected a table, got {}", where_, brief(json)));
    }
    for (const auto& [key, value] : json.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        throw InvalidArgument(fmt::format("{}: {}", where_, unknown_name("key", key, known)));
      }
    }
  }
  const nlohmann::json& required(const std::string& key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) {
      throw InvalidArgument(fmt::format("{}: the key \"{}\" is missing", where_, key));
    }
    return *found;
  }
  std::string text(const std::string& key) const {
    const auto& value = required(key);
    if (!value.is_string() || value.get_ref<const std::string&>().empty()) {
      throw InvalidArgument(fmt::format("{}: {} = {}, expected a text", where_, key, brief(value)));
    }
    return value;
  }
  std::string text(const std::string& key, const std::string& otherwise) const {
    return json_.contains(key) ? text(key) : otherwise;
  }
  double at_least_zero(const std::string& key) const {
    if (!json_.contains(key)) {
      return 0;
    }
    const auto& value = json_.at(key);
    if (!value.is_number() || !(value.get<double>() >= 0) || !(value.get<double>() < 1e300)) {
      throw InvalidArgument(fmt::format("{}: {} = {}, expected a number >= 0", where_, key, brief(value)));
    }
    return value;
  }

  /// A table of names by name; empty where absent.
  Renaming renaming(const std::string& key) const {
    Renaming out;
    if (!json_.contains(key)) {
      return out;
    }
    const auto& value = json_.at(key);
    const auto is_text = [](const nlohmann::json& to) { return to.is_string(); };
    if (!value.is_object() || !std::all_of(value.begin(), value.end(), is_text)) {
      throw InvalidArgument(
          fmt::format("{}: {} = {}, expected {{ \"NAME IN THE FILE\" = \"NAME HERE\" }}", where_, key, brief(value)));
    }
    for (const auto& [from, to] : value.items()) {
      out[from] = to.get<std::string>();
    }
    return out;
  }

  std::int64_t count(const std::string& key) const {
    if (!json_.contains(key)) {
      return 0;
    }
    const auto& value = json_.at(key);
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0) {
      throw InvalidArgument(fmt::format("{}: {} = {}, expected a whole number >= 0", where_, key, brief(value)));
    }
    return value;
  }

 private:
  const nlohmann::json& json_;
  std::string where_;
};

StageDescription read_stage(const nlohmann::json& json, std::size_t number, const fs::path& folder) {
  const auto where = fmt::format("stage {}", json.is_object() && json.contains("name") && json["name"].is_string()
                                                 ? json["name"].get<std::string>()
                                                 : std::to_string(number + 1));
  const Table table(
      json, where,
      {"name", "train", "tuning", "loss", "weight-decay", "optimizer", "snapshots", "checkpoint", "rename"});
  StageDescription out;
  out.name = table.text("name");
  if (out.name == "all" || out.name.find_first_of("/ \t\n") != out.name.npos) {
    throw InvalidArgument(fmt::format("{}: name = \"{}\", expected a word other than \"all\"", where, out.name));
  }
  out.train = table.required("train");
  out.tuning = table.text("tuning", out.tuning);
  out.loss = table.text("loss", out.loss);
  out.optimizer = table.text("optimizer", out.optimizer);
  out.weight_decay = table.at_least_zero("weight-decay");
  out.snapshots = table.count("snapshots");
  out.rename = table.renaming("rename");
  out.checkpoint = (folder / table.text("checkpoint")).lexically_normal();
  if (!out.checkpoint.has_filename()) {  // run/finetune/
    out.checkpoint = out.checkpoint.parent_path();
  }
  try {  // a misspelt method is found before any data is read
    find_method<Tuning>(out.tuning).first->options(find_method<Tuning>(out.tuning).second);
    find_method<Loss>(out.loss).first->options(find_method<Loss>(out.loss).second);
    find_method<Optimizer>(out.optimizer).first->options(find_method<Optimizer>(out.optimizer).second);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: {}", where, error.what()));
  }
  return out;
}

/// Whether a data table's format has that key.
bool takes(const nlohmann::json& table, const std::string& key) {
  if (!table.is_object() || !table.contains("format") || !table["format"].is_string()) {
    return false;
  }
  const auto keys = create<DataFormat>(table["format"].get<std::string>())->keys();
  return std::any_of(keys.begin(), keys.end(), [&](const auto& info) { return info.name == key; });
}

bool same_format(const nlohmann::json& a, const nlohmann::json& b) {
  return a.is_object() && b.is_object() && a.contains("format") && b.contains("format") && a["format"] == b["format"];
}

bool reads_cells(const nlohmann::json& table) {
  const auto format = table.is_object() ? table.value("format", nlohmann::json()) : nlohmann::json();
  return format == "csv" || format == "tsv" || format == "jsonl";
}

/// Queries with what they do not say and the training data does: the label's column, which labels are dropped, and what
/// was done to channels.
nlohmann::json with_keys_of(const nlohmann::json& training, nlohmann::json queries) {
  if (queries.is_array()) {
    for (auto& table : queries) {
      table = with_keys_of(training, std::move(table));
    }
    return queries;
  }
  const auto& from = training.is_array() && !training.empty() ? training.front() : training;
  const auto inherit = [&](const char* key) {
    if (from.is_object() && from.contains(key) && !queries.contains(key) && takes(queries, key)) {
      queries[key] = from[key];
    }
  };
  for (const char* key : {"label", "mean", "std"}) {
    inherit(key);
  }
  if (same_format(from, queries) || (reads_cells(from) && reads_cells(queries))) {  // labels are written alike
    inherit("drop-labels");
  }
  return queries;
}

/// "mean = [0.5], no std"
std::string channels_text(const nlohmann::json& table) {
  const auto text = [&](const std::string& key) {
    return table.contains(key) ? key + " = " + brief(table[key]) : "no " + key;
  };
  return text("mean") + ", " + text("std");
}

/// Whether both do the same to each channel. The inputs have one shape.
bool same_channels(const Dataset& a, const Dataset& b) {
  const auto same = [](const at::Tensor& x, const at::Tensor& y, double neither) {
    const auto filled = [&](const at::Tensor& z) { return z.defined() ? z : at::full({1}, neither, at::kDouble); };
    return filled(x).sub(filled(y)).count_nonzero().item<std::int64_t>() == 0;
  };
  return same(a.mean(), b.mean(), 0) && same(a.deviation(), b.deviation(), 1);
}

/// Throws InvalidArgument where images of one format are scaled in the stage `before` and nothing is said of `table`'s.
void check_channels_said(const nlohmann::json& table, const StageDescription& before) {
  const auto says = [](const nlohmann::json& data) { return data.contains("mean") || data.contains("std"); };
  if (same_format(table, before.train) && says(before.train) && !says(table)) {
    throw InvalidArgument(
        fmt::format("keys mean and std are missing, and stage {} has {}: give the same, or mean = [0] for images as "
                    "they are",
                    before.name, channels_text(before.train)));
  }
}

/// The data for this stage must shape the body as the stage before left it.
void check_fit(const std::string& stage, const std::string& before, const ParameterSet& fresh,
               const ParameterSet& parent) {
  if (parent.empty()) {
    throw InvalidArgument(
        fmt::format("stage {}: this model has no body, so stage {} hands nothing on to it", stage, before));
  }
  const auto body = fresh.without("head.");
  for (std::size_t i = 0; i < body.size(); ++i) {
    const auto& name = body.names()[i];
    const auto& value = body.values()[i];
    if (!parent.contains(name)) {
      throw InvalidArgument(
          fmt::format("stage {}: its model has {}, which stage {} does not hand on", stage, name, before));
    }
    if (value.sizes() != parent.at(name).sizes()) {
      throw InvalidArgument(fmt::format("stage {}: {} would be [{}] for its data, but stage {} hands on [{}]", stage,
                                        name, fmt::join(value.sizes(), ", "), before,
                                        fmt::join(parent.at(name).sizes(), ", ")));
    }
  }
}

/// Throws DataError for a key of very many parts, a.b.c.…, each of which toml++ makes a table within the other. Texts
/// and comments are passed over.
void check_keys(std::string_view text, const fs::path& path) {
  constexpr std::size_t kMost = 512;  // as in JSON
  std::size_t parts = 0, line = 1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size()) - 1;
    } else if (c == '"' || c == '\'') {
      const std::string ends(text.substr(i, 3) == std::string(3, c) ? 3 : 1, c);
      for (i += ends.size(); i < text.size() && text.substr(i, ends.size()) != ends; ++i) {
        line += text[i] == '\n' ? 1 : 0;
        i += c == '"' && text[i] == '\\' ? 1 : 0;
      }
      for (i += ends.size() - 1; ends.size() > 1 && i + 1 < text.size() && text[i + 1] == c;
           ++i) {  // "a"""" ends in a "
      }
    } else if (c == '.') {
      if (++parts == kMost) {
        throw DataError(fmt::format("{}: line {}: a key of more than {} parts", path.string(), line, kMost));
      }
    } else if (c != ' ' && c != '\t' && c != '-' && c != '_' && std::isalnum(static_cast<unsigned char>(c)) == 0) {
      parts = 0;
    }
    line += i < text.size() && text[i] == '\n' ? 1 : 0;
  }
}

/// Texts go through the model so many tokens at a time at most: a batch's activations are to fit the caches.
constexpr std::int64_t kTokensPerBatch = 4096;

std::int64_t batch_size_for(const Dataset& data, std::int64_t asked) {
  return data.is_text() ? std::clamp<std::int64_t>(kTokensPerBatch / data.longest(), 1, asked) : asked;
}

}  // namespace

Pipeline::Pipeline(const fs::path& path, const RunOptions& options) : path_(path), options_(options) {
  nlohmann::json file;
  const auto text = read_utf8(path);
  check_keys(text, path);
  try {
    file = to_json(toml::parse(text, path.string()));
  } catch (const toml::parse_error& error) {
    throw DataError(fmt::format(
        "{}: line {}: {}{}", path.string(), error.source().begin.line, error.description(),
        path.extension() == ".toml" ? "" : "; expected a pipeline file: whence init writes one for data or a model"));
  } catch (const InvalidArgument& error) {
    throw DataError(fmt::format("{}: {}", path.string(), error.what()));
  }
  try {
    const Table top(file, "the pipeline", {"seed", "model", "stage", "queries"});
    own_seed_ = static_cast<std::uint64_t>(top.count("seed"));
    seed_ = options.seed.value_or(own_seed_);
    read_model(top.required("model"));
    const auto& list = top.required("stage");
    if (!list.is_array() || list.empty()) {
      throw InvalidArgument("[[stage]]: expected one table or more");
    }
    std::set<std::string> names, checkpoints;
    for (std::size_t i = 0; i < list.size(); ++i) {
      auto stage = read_stage(list[i], i, path.parent_path());
      if (!names.insert(stage.name).second) {
        throw InvalidArgument(fmt::format("stage {}: another stage has that name", stage.name));
      }
      if (!checkpoints.insert(stage.checkpoint.lexically_normal().string()).second) {
        throw InvalidArgument(
            fmt::format("stage {}: another stage has the checkpoint {}", stage.name, stage.checkpoint.string()));
      }
      if (stage.checkpoint.extension() != ".safetensors" && language_model_ == nullptr) {
        throw InvalidArgument(fmt::format("stage {}: checkpoint = {}, expected a .safetensors file", stage.name,
                                          stage.checkpoint.string()));
      }
      stages_.push_back(std::move(stage));
    }
    if (file.contains("queries")) {
      for (const auto& [split, table] : file["queries"].items()) {
        queries_[split] = Table(table, "[queries." + split + "]", {"data"}).required("data");
      }
    }
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: {}", path.string(), error.what()));
  }
}

void Pipeline::read_model(const nlohmann::json& json) {
  const Table table(json, "[model]", {"spec", "checkpoint", "tokenizer", "adapter"});
  if (json.contains("spec") == json.contains("checkpoint")) {
    throw InvalidArgument("[model]: expected one of the keys \"spec\" and \"checkpoint\"");
  }
  if (json.contains("spec")) {
    model_spec_ = table.text("spec");
    model_ = create<Model>(model_spec_);
  } else {
    const auto directory = path_.parent_path() / table.text("checkpoint");
    const auto adapter = table.text("adapter", "refuse");
    if (adapter != "refuse" && adapter != "ignore") {
      throw InvalidArgument(fmt::format("[model]: adapter = \"{}\", expected refuse or ignore", adapter));
    }
    const std::string shown =  // paths may be any bytes, what is written is UTF-8
        nlohmann::json::parse(json_text(nlohmann::json(directory.string())));
    model_spec_ = "transformer:directory=" + shown;
    model_ =
        open_model_folder(directory, adapter == "ignore", ", or leave it out with adapter = \"ignore\" in [model]");
  }
  model_table_ = json;
  if (json.contains("spec")) {
    model_table_["spec"] = resolved_spec<Model>(model_spec_);
  }
  language_model_ = dynamic_cast<const LanguageModel*>(model_.get());
  if (language_model_ == nullptr) {
    if (json.contains("tokenizer")) {
      throw InvalidArgument("[model]: tokenizer is for a model of texts");
    }
    return;
  }
  for (const auto& text : language_model_->notes()) {
    note(text);
  }
  reading_ = TextReading{nullptr, language_model_->vocabulary(), language_model_->context()};
  auto tokenizer = language_model_->directory() / "tokenizer.json";
  if (json.contains("tokenizer")) {
    tokenizer = path_.parent_path() / table.text("tokenizer");
  }
  if (json.contains("tokenizer") || fs::exists(tokenizer)) {
    reading_->tokenizer = std::make_shared<const Tokenizer>(tokenizer);
    for (const auto& text : reading_->tokenizer->notes()) {
      note(text);
    }
    tokenizer_ = fs::is_directory(tokenizer) ? tokenizer / "tokenizer.json" : tokenizer;
  }
}

void Pipeline::note(const std::string& text) const {
  if (std::find(notes_.begin(), notes_.end(), text) == notes_.end()) {
    notes_.push_back(text);
    if (options_.note) {
      options_.note(text);
    }
  }
}

std::vector<fs::path> Pipeline::model_files() const {
  std::vector<fs::path> out;
  if (language_model_ == nullptr) {
    return out;
  }
  out = checkpoint_files(language_model_->directory());
  out.push_back(language_model_->directory() / "config.json");
  if (!tokenizer_.empty()) {
    for (auto& file : tokenizer_files(tokenizer_)) {
      if (std::find(out.begin(), out.end(), file) == out.end()) {
        out.push_back(std::move(file));
      }
    }
  }
  return out;
}

std::size_t Pipeline::stage_index(const std::string& name) const {
  std::vector<std::string> known;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    if (stages_[i].name == name) {
      return i;
    }
    known.push_back(stages_[i].name);
  }
  throw InvalidArgument(fmt::format("{}: {}", path_.string(), unknown_name("stage", name, known)));
}

std::vector<std::string> Pipeline::query_splits() const {
  std::vector<std::string> out;
  for (const auto& [split, table] : queries_) {
    out.push_back(split);
  }
  return out;
}

std::vector<fs::path> Pipeline::snapshot_files(std::size_t stage) const {
  const auto& description = stages_.at(stage);
  std::vector<fs::path> out;
  for (std::int64_t number = 1; number <= description.snapshots; ++number) {
    out.push_back(detail::snapshot_path(description.checkpoint, number));
  }
  return out;
}

Dataset Pipeline::read(const nlohmann::json& table, std::size_t stage, DataReading reading) const {
  const auto wanted = create<Loss>(stages_.at(stage).loss)->wants();
  const bool of_tokens = wanted == TargetKind::kNextTokens || wanted == TargetKind::kMaskedTokens;
  if (of_tokens && language_model_ == nullptr) {
    throw InvalidArgument(fmt::format("loss = {}, but {} is no model of texts", stages_[stage].loss, model_spec_));
  }
  if (of_tokens && (wanted == TargetKind::kNextTokens) != language_model_->causal()) {
    throw InvalidArgument(fmt::format("loss = {}, but the model in {} {}", stages_[stage].loss,
                                      language_model_->directory().string(),
                                      language_model_->causal() ? "predicts next tokens: use next-token"
                                                                : "sees the tokens after each: use masked-token"));
  }
  if (reading_ && !reading_->tokenizer && table.is_object() && table.value("format", "") != "safetensors") {
    for (const char* name : {"tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
                             "tekken.json", "tokenizer_config.json"}) {
      if (const auto folder = language_model_->directory(); fs::exists(folder / name)) {
        throw InvalidArgument(fmt::format(
            "{} has a {} but no tokenizer.json, which is what is read: python3 -c \"import transformers as t; "
            "t.AutoTokenizer.from_pretrained('{}').save_pretrained('{}-tokenizer')\" makes it; then tokenizer = "
            "\"{}-tokenizer\" in [model]",
            folder.string(), name, folder.string(), folder.string(), folder.string()));
      }
    }
  }
  reading.wanted = wanted;
  reading.texts = reading_ ? &*reading_ : nullptr;
  auto data = read_dataset(table, path_.parent_path(), reading).to(options_.dtype, options_.device);
  for (const auto& text : data.notes()) {
    note(text);
  }
  return data;
}

/// How the first stage that is a table reads tables; null where there is none before `stage`.
std::shared_ptr<const TableEncoding> Pipeline::encoding_before(std::size_t stage) const {
  for (std::size_t k = 0; k < stage && !reading_; ++k) {
    const auto& train = stages_[k].train;
    if (reads_cells(train)) {
      return training_data(k).table();
    }
  }
  return nullptr;
}

const Dataset& Pipeline::training_data(std::size_t stage) const {
  const auto found = data_.find(stage);
  if (found != data_.end()) {
    return found->second;
  }
  const auto& description = stages_.at(stage);
  try {
    DataReading reading;
    reading.table = encoding_before(stage);
    reading.standardize = true;
    const bool trained = fresh_.count(stage) == 0 && is_trained(stage);
    if (trained) {
      reading.head = checkpoint_classes(description.checkpoint, language_model_);
      reading.standardize = checkpoint_metadata(description.checkpoint, "standardize") == "true";
    }
    if (stage > 0) {
      check_channels_said(description.train, stages_[stage - 1]);
    }
    auto data = read(description.train, stage, reading);
    if (reading.head.from.empty() && language_model_ != nullptr && data.target_kind() == TargetKind::kClasses &&
        data.head_outputs() > 0) {
      const auto start = checkpoint_classes(language_model_->directory(), language_model_);
      const auto is_output = [&](const std::string& name) {
        return std::find(start.names.begin(), start.names.end(), name) != start.names.end();
      };
      if (!start.names.empty() && std::all_of(data.classes().begin(), data.classes().end(), is_output)) {
        reading.head = start;  // training starts from a head whose outputs have these names
        data = read(description.train, stage, reading);
      } else if (start.outputs > 0) {
        note(fmt::format("stage {}: the head in {} is one of {}, not of {}: training starts from {}", description.name,
                         start.from,
                         start.names.empty() ? fmt::format("{} classes without names", start.outputs)
                                             : fmt::format("{}", fmt::join(start.names, ", ")),
                         fmt::join(data.classes(), ", "),
                         start.outputs == data.outputs() ? "it, its outputs in this order" : "a new one"));
      }
    }
    check_classes_differ(data, /*fresh=*/!trained);
    return data_.emplace(stage, std::move(data)).first->second;
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", path_.string(), description.name, error.what()));
  }
}

Dataset Pipeline::queries(const std::string& split, std::int64_t limit) const {
  const auto found = queries_.find(split);
  if (found == queries_.end()) {
    throw InvalidArgument(fmt::format("{}: {}", path_.string(), unknown_name("queries", split, query_splits())));
  }
  const auto last = stages_.size() - 1;
  const auto& trained_on = training_data(last);
  const auto& training = stages_[last].train;
  nlohmann::json table;
  Dataset data;
  try {
    table = with_keys_of(training, found->second);
    DataReading reading;
    reading.known_classes = trained_on.classes();
    if (const auto& checkpoint = stages_[last].checkpoint;
        fs::is_directory(checkpoint) && !is_whence_checkpoint(checkpoint) && trained_on.head_outputs() > 0) {
      const auto head = checkpoint_classes(checkpoint, language_model_);  // numbers too are classes by id2label
      if (!head.names.empty() && head.names == trained_on.classes()) {
        reading.head = head;
        reading.known_classes.clear();
      }
    }
    reading.table = trained_on.table() ? trained_on.table() : encoding_before(last);
    data = read(table, last, reading);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: [queries.{}]: {}", path_.string(), split, error.what()));
  }
  if (data.input_shape() != trained_on.input_shape() || data.outputs() != trained_on.outputs()) {
    throw InvalidArgument(
        fmt::format("{}: [queries.{}]: inputs [{}] and {} outputs, expected [{}] and {} as in stage {}", path_.string(),
                    split, fmt::join(data.input_shape(), ", "), data.outputs(),
                    fmt::join(trained_on.input_shape(), ", "), trained_on.outputs(), stages_[last].name));
  }
  if (!same_channels(data, trained_on)) {
    const auto text = fmt::format("[queries.{}]: {}, and stage {} has {}", split, channels_text(table),
                                  stages_[last].name, channels_text(training));
    if (same_format(table, training)) {
      throw InvalidArgument(
          fmt::format("{}: {}: give the same, or leave both out of the queries", path_.string(), text));
    }
    note(text);  // one of them may be stored as the model takes it
  } else if (!same_format(table, training) && (data.mean().defined() || data.deviation().defined()) &&
             channels_text(table) != channels_text(found->second)) {
    note(fmt::format("[queries.{}]: {}, as stage {} has; mean = [0], std = [1] says that they are stored so already",
                     split, channels_text(table), stages_[last].name));
  }
  if (data.texts().asked.defined() != trained_on.texts().asked.defined()) {
    throw InvalidArgument(fmt::format("{}: [queries.{}]: key label-words is {}, but stage {} was trained with{} it",
                                      path_.string(), split, data.texts().asked.defined() ? "given" : "missing",
                                      stages_[last].name, data.texts().asked.defined() ? "out" : ""));
  }
  return limit > 0 && limit < data.size() ? data.take(at::arange(limit)) : data;
}

Stage Pipeline::untrained(std::size_t stage, const Chain& before) const {
  const auto& description = stages_.at(stage);
  const auto& data = training_data(stage);
  auto random = Random(seed_).stream("stage " + description.name);
  const auto fresh =
      model_->initial(data.input_shape(), data.head_outputs(), random).to(options_.dtype, options_.device);
  ParameterSet parent;
  if (!before.empty()) {
    const auto& previous = before.back();
    parent = previous.objective.merge(previous.theta, previous.parent).without("head.");
    check_fit(description.name, previous.name, fresh, parent);
  }
  std::shared_ptr<const Tuning> tuning = create<Tuning>(description.tuning);
  ParameterSet trained;
  try {
    trained = tuning->trainable(fresh, parent, random);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", path_.string(), description.name, error.what()));
  }
  Objective objective(model_, create<Loss>(description.loss), std::move(tuning), data, description.weight_decay,
                      trained, parent, batch_size_for(data, options_.batch_size));
  // shared, not copied: nothing writes into parameters, optimizers put new ones in their place
  return {description.name, std::move(objective), create<Optimizer>(description.optimizer), trained.values(),
          parent.values()};
}

Chain Pipeline::untrained(std::size_t count) const {
  Chain chain;
  for (std::size_t i = 0; i < count; ++i) {
    chain.push_back(untrained(i, chain));
  }
  return chain;
}

Chain Pipeline::load() const { return load(stages_.size()); }

Chain Pipeline::load(std::size_t count) const {
  Chain chain;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& description = stages_.at(i);
    if (!is_trained(i)) {
      throw DataError(fmt::format("stage {} has no checkpoint at {}: run whence train {}", description.name,
                                  description.checkpoint.string(), path_.string()));
    }
    auto stage = untrained(i, chain);
    const auto read =
        read_checkpoint(description.checkpoint, language_model_, stage.objective.trained(), description.rename,
                        fmt::format("{} (stage {})", description.checkpoint.string(), description.name));
    stage.theta = read.tensors.values();
    stage.objective = stage.objective.at(stage.theta, stage.parent);  // lets the fresh ones go
    if (!read.note.empty()) {
      note(language_model_ != nullptr ? read.note
                                      : fmt::format("{}; files do not tell activations: this is {}", read.note,
                                                    resolved_spec<Model>(model_spec_)));
    }
    const auto remedy = fmt::format("run whence train {} --stage {} --force", path_.string(), description.name);
    stage.trajectory = detail::read_trajectory(snapshot_files(i), stage, description.checkpoint, remedy);
    chain.push_back(std::move(stage));
  }
  return chain;
}

}  // namespace whence
