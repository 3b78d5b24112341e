#include "whence/stages/pipeline_file.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/text.h"
#include "whence/models/loss.h"
#include "whence/stages/head_start.h"
#include "whence/training/optimizer.h"
#include "whence/training/priming.h"
#include "whence/tuning/tuning.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

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

/// The file as JSON.
nlohmann::json read_toml(const fs::path& path) {
  const auto text = read_utf8(path);
  check_keys(text, path);
  try {
    return to_json(toml::parse(text, path.string()));
  } catch (const toml::parse_error& error) {
    throw DataError(fmt::format(
        "{}: line {}: {}{}", path.string(), error.source().begin.line, error.description(),
        path.extension() == ".toml" ? "" : "; expected a pipeline file: whence init writes one for data or a model"));
  } catch (const InvalidArgument& error) {
    throw DataError(fmt::format("{}: {}", path.string(), error.what()));
  }
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

/// Of a stage with the key priming. Throws InvalidArgument.
void check_primed(const StageDescription& stage) {
  const auto inner = create<Priming>(stage.priming)->inner();
  find_method<Tuning>(inner).first->options(find_method<Tuning>(inner).second);
  if (stage.tasks.empty() && !(stage.train.is_array() && stage.train.size() > 1)) {
    throw InvalidArgument(
        "priming is for tasks: tasks = \"COLUMN\" names the column that tells them apart, or train is a list of "
        "tables, "
        "one each");
  }
  if (stage.checkpoint.extension() != ".safetensors") {
    throw InvalidArgument(fmt::format("checkpoint = {}, expected a .safetensors file: a primed stage ends as a body",
                                      stage.checkpoint.string()));
  }
}

/// How a stage's training is validated. Throws InvalidArgument.
void read_validation(const nlohmann::json& json, const Table& table, StageDescription& out) {
  if (!json.contains("validation")) {
    for (const char* key : {"patience", "validation-every", "validation-draws", "validation-by"}) {
      if (json.contains(key)) {
        throw InvalidArgument(fmt::format("stage {}: {} = {}, which is for a stage with the key validation", out.name,
                                          key, brief(json[key])));
      }
    }
    return;
  }
  for (const char* key : {"priming", "snapshots"}) {
    if (json.contains(key)) {
      throw InvalidArgument(
          fmt::format("stage {}: validation and {} = {}: expected one of the two", out.name, key, brief(json[key])));
    }
  }
  out.validation = table.required("validation");
  if (json.contains("patience")) {
    out.patience = table.count("patience");
  }
  out.validation_every = table.count("validation-every");
  out.validation_draws = table.count("validation-draws");
  out.validation_by = table.text("validation-by", out.validation_by);
  if (out.validation_by != "loss" && out.validation_by != "accuracy") {
    throw InvalidArgument(
        fmt::format("stage {}: validation-by = \"{}\", expected loss or accuracy", out.name, out.validation_by));
  }
}

StageDescription read_stage(const nlohmann::json& json, std::size_t number, const fs::path& folder) {
  const auto where = fmt::format("stage {}", json.is_object() && json.contains("name") && json["name"].is_string()
                                                 ? json["name"].get<std::string>()
                                                 : std::to_string(number + 1));
  const Table table(
      json, where,
      {"name", "train", "tuning", "loss", "weight-decay", "optimizer", "priming", "tasks", "validation", "patience",
       "validation-every", "validation-draws", "validation-by", "snapshots", "head-start", "checkpoint", "rename"});
  StageDescription out;
  out.name = table.text("name");
  if (out.name == kEveryStage || out.name.find_first_of("/ \t\n") != out.name.npos) {
    throw InvalidArgument(fmt::format("{}: name = \"{}\", expected a word other than \"all\"", where, out.name));
  }
  out.train = table.required("train");
  out.tuning = table.text("tuning", out.tuning);
  out.says_tuning = json.contains("tuning");
  out.loss = table.text("loss", out.loss);
  out.optimizer = table.text("optimizer", out.optimizer);
  out.says_optimizer = json.contains("optimizer");
  out.weight_decay = table.at_least_zero("weight-decay");
  if (json.contains("priming")) {
    out.priming = table.text("priming");
    out.tasks = table.text("tasks", "");
  } else if (json.contains("tasks")) {
    throw InvalidArgument(
        fmt::format("{}: tasks = {}, which is for a stage with the key priming", where, brief(json["tasks"])));
  }
  read_validation(json, table, out);
  out.snapshots = table.count("snapshots");
  out.head_start = table.text("head-start", "");
  out.rename = table.renaming("rename");
  out.checkpoint = (folder / table.text("checkpoint")).lexically_normal();
  if (!out.checkpoint.has_filename()) {  // run/finetune/
    out.checkpoint = out.checkpoint.parent_path();
  }
  try {  // a misspelt method is found before any data is read
    find_method<Tuning>(out.tuning).first->options(find_method<Tuning>(out.tuning).second);
    find_method<Loss>(out.loss).first->options(find_method<Loss>(out.loss).second);
    find_method<Optimizer>(out.optimizer).first->options(find_method<Optimizer>(out.optimizer).second);
    if (!parse_head_start(out.head_start)) {
      out.head_start.clear();
    }
    if (!out.priming.empty()) {
      check_primed(out);
    }
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: {}", where, error.what()));
  }
  return out;
}

/// A path may be any bytes, what is written is UTF-8.
std::string utf8(const std::string& path) { return nlohmann::json::parse(json_text(nlohmann::json(path))); }

ModelDescription read_model(const nlohmann::json& json, const fs::path& folder) {
  const Table table(json, "[model]", {"spec", "checkpoint", "exported", "head", "output", "tokenizer", "adapter"});
  const std::vector<bool> said{json.contains("spec"), json.contains("checkpoint"), json.contains("exported")};
  if (std::count(said.begin(), said.end(), true) != 1) {
    throw InvalidArgument("[model]: expected one of the keys \"spec\", \"checkpoint\" and \"exported\"");
  }
  for (const char* key : {"head", "output"}) {
    if (json.contains(key) && !json.contains("exported")) {
      throw InvalidArgument(fmt::format("[model]: {} = {}, which is for an exported model", key, brief(json[key])));
    }
  }
  ModelDescription out;
  out.table = json;
  if (json.contains("spec")) {
    out.spec = table.text("spec");
  } else if (json.contains("exported")) {
    out.spec = "exported:file=" + utf8((folder / table.text("exported")).string());
    for (const std::string key : {"head", "output"}) {
      out.spec += json.contains(key) ? fmt::format(",{}={}", key, table.text(key)) : "";
    }
  } else {
    out.folder = folder / table.text("checkpoint");
    const auto adapter = table.text("adapter", "refuse");
    if (adapter != "refuse" && adapter != "ignore") {
      throw InvalidArgument(fmt::format("[model]: adapter = \"{}\", expected refuse or ignore", adapter));
    }
    out.ignore_adapter = adapter == "ignore";
  }
  if (json.contains("tokenizer")) {
    out.tokenizer = folder / table.text("tokenizer");
  }
  return out;
}

/// The stages, each of a name and a checkpoint of its own.
std::vector<StageDescription> read_stages(const nlohmann::json& list, const fs::path& folder) {
  if (list.is_object()) {
    throw InvalidArgument("[stage]: write [[stage]], once for each stage");
  }
  if (!list.is_array() || list.empty()) {
    throw InvalidArgument("[[stage]]: expected one table or more");
  }
  std::vector<StageDescription> out;
  std::set<std::string> names, checkpoints;
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto stage = read_stage(list[i], i, folder);
    if (!names.insert(stage.name).second) {
      throw InvalidArgument(fmt::format("stage {}: another stage has that name", stage.name));
    }
    if (!checkpoints.insert(stage.checkpoint.lexically_normal().string()).second) {
      throw InvalidArgument(
          fmt::format("stage {}: another stage has the checkpoint {}", stage.name, stage.checkpoint.string()));
    }
    out.push_back(std::move(stage));
  }
  return out;
}

}  // namespace

PipelineFile read_pipeline_file(const fs::path& path) {
  const auto json = read_toml(path);
  try {
    const Table top(json, "the pipeline", {"seed", "model", "stage", "queries"});
    PipelineFile out;
    out.path = path;
    out.seed = static_cast<std::uint64_t>(top.count("seed"));
    out.model = read_model(top.required("model"), path.parent_path());
    out.stages = read_stages(top.required("stage"), path.parent_path());
    if (json.contains("queries")) {
      for (const auto& [split, table] : json["queries"].items()) {
        out.queries[split] = Table(table, "[queries." + split + "]", {"data"}).required("data");
      }
    }
    return out;
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: {}", path.string(), error.what()));
  }
}

}  // namespace whence
