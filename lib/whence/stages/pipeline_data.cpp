// The part of Pipeline that reads data: what a stage is trained on, and the queries.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <set>

#include "whence/core/json.h"
#include "whence/data/example_column.h"
#include "whence/data/format.h"
#include "whence/data/target_values.h"
#include "whence/data/training_checks.h"
#include "whence/models/checkpoint.h"
#include "whence/models/exported/exported_model.h"
#include "whence/stages/pipeline.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// The format of a data table; null where it names none.
std::unique_ptr<DataFormat> format_of(const nlohmann::json& table) {
  const bool named = table.is_object() && table.contains("format") && table["format"].is_string();
  return named ? create<DataFormat>(table["format"].get<std::string>()) : nullptr;
}

/// Whether a data table's format has that key.
bool takes(const nlohmann::json& table, const std::string& key) {
  const auto format = format_of(table);
  const auto keys = format ? format->keys() : std::vector<OptionInfo>{};
  return std::any_of(keys.begin(), keys.end(), [&](const auto& info) { return info.name == key; });
}

bool same_format(const nlohmann::json& a, const nlohmann::json& b) {
  return a.is_object() && b.is_object() && a.contains("format") && b.contains("format") && a["format"] == b["format"];
}

bool has_columns(const nlohmann::json& table) {
  const auto format = format_of(table);
  return format && format->has_columns();
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
  if (!queries.contains("label") && !queries.contains("labels")) {  // one of them names the targets
    inherit("label");
    inherit("labels");
  }
  inherit("mean");
  inherit("std");
  if (same_format(from, queries) || (has_columns(from) && has_columns(queries))) {  // labels are written alike
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

/// A table for an exported model that takes several inputs, or makes its loss itself, with what that says of its
/// tensors.
nlohmann::json with_arguments(const ExportedModel& model, const std::string& loss, nlohmann::json table) {
  if (table.is_array()) {
    for (auto& part : table) {
      part = with_arguments(model, loss, std::move(part));
    }
    return table;
  }
  const bool inside = find_method<Loss>(loss).first->name == "exported";
  if ((model.arguments().size() < 2 && !inside) || !takes(table, "arguments")) {
    return table;
  }
  if (!table.contains("arguments")) {
    table["arguments"] = model.arguments();
  }
  if (inside && !table.contains("targets")) {
    table["targets"] = "none";
  }
  return table;
}

/// A table of images for an exported model, scaled as the file says that its images were where the table says nothing.
/// Tensors, which may hold what the model is given, are taken as they are. `doubt` is told of what differs.
nlohmann::json with_channels(const ExportedModel& model, nlohmann::json table,
                             const std::function<void(const std::string&)>& doubt) {
  if (table.is_array()) {
    for (auto& part : table) {
      part = with_channels(model, std::move(part), doubt);
    }
    return table;
  }
  nlohmann::json stored = nlohmann::json::object();
  if (!model.channel_means().empty()) {
    stored["mean"] = model.channel_means();
  }
  if (!model.channel_deviations().empty()) {
    stored["std"] = model.channel_deviations();
  }
  if (stored.empty() || !takes(table, "mean")) {
    return table;
  }
  const bool says = table.contains("mean") || table.contains("std");
  if (!says && !takes(table, "arguments")) {
    table.update(stored);
  } else if (channels_text(table) != channels_text(stored)) {
    doubt(fmt::format("{} was exported with {}, and data of format {} {} {}", model.file().string(),
                      channels_text(stored), table["format"].get<std::string>(),
                      says ? "is given with" : "is taken as it is:", channels_text(table)));
  }
  return table;
}

bool all_among(const std::vector<std::string>& labels, const std::vector<std::string>& names) {
  const std::set<std::string> known(names.begin(), names.end());
  return std::all_of(labels.begin(), labels.end(), [&](const auto& label) { return known.contains(label); });
}

/// Whether a data table's key `classes` names outputs that training goes on with: all of them or, where it cannot draw
/// new ones, some.
bool lists_outputs(const nlohmann::json& table, const HeadClasses& head, bool has_head) {
  const auto classes = table.is_object() ? table.value("classes", nlohmann::json()) : nlohmann::json();
  if (has_head && std::ssize(classes) != head.outputs) {
    return false;
  }
  const std::set<std::string> known(head.names.begin(), head.names.end());
  return classes.is_array() && !classes.empty() && std::all_of(classes.begin(), classes.end(), [&](const auto& name) {
           return name.is_string() && known.contains(name.template get<std::string>());
         });
}

}  // namespace

/// What an exported model called its outputs when the stage was trained, or does now where whence did not train it;
/// of any other model nothing.
std::vector<std::string> Pipeline::number_names(std::size_t stage) const {
  const auto* exported = dynamic_cast<const ExportedModel*>(model_.get());
  const auto& checkpoint = file_.stages.at(stage).checkpoint;
  if (exported == nullptr) {
    return {};
  }
  const auto then = fresh_.count(stage) == 0 && is_trained(stage) && !is_exported(checkpoint)
                        ? checkpoint_metadata(checkpoint, kNumberNames)
                        : std::string();
  const auto told = nlohmann::json::parse(then, nullptr, /*allow_exceptions=*/false);
  const bool names = std::all_of(told.begin(), told.end(), [](const auto& name) { return name.is_string(); });
  return told.is_array() && names ? told.get<std::vector<std::string>>() : exported->class_names();
}

Dataset Pipeline::read(const nlohmann::json& given, std::size_t stage, DataReading reading) const {
  const auto* exported = dynamic_cast<const ExportedModel*>(model_.get());
  const auto table = exported == nullptr
                         ? given
                         : with_channels(*exported, with_arguments(*exported, file_.stages.at(stage).loss, given),
                                         [&](const std::string& text) { note(text); });
  const auto loss = create<Loss>(file_.stages.at(stage).loss);
  const auto wanted = loss->wants();
  const bool of_tokens = are_tokens(wanted);
  if (of_tokens && !reading_) {
    throw InvalidArgument(fmt::format("loss = {}, but {} is no model of texts", file_.stages[stage].loss, model_spec_));
  }
  if (of_tokens && language_model_ != nullptr && (wanted == TargetKind::kNextTokens) != language_model_->causal()) {
    throw InvalidArgument(fmt::format("loss = {}, but the model in {} {}", file_.stages[stage].loss,
                                      language_model_->directory().string(),
                                      language_model_->causal() ? "predicts next tokens: use next-token"
                                                                : "sees the tokens after each: use masked-token"));
  }
  if (const auto format = format_of(table); reading_ && !reading_->tokenizer && format && !format->may_hold_tokens()) {
    if (language_model_ == nullptr) {
      throw InvalidArgument(
          "texts for an exported model: tokenizer = \"FOLDER\" in [model] names the one to read them by");
    }
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
  if (exported != nullptr) {
    reading.number_names = number_names(stage);
    reading.check_shapes = [exported](const std::vector<InputShape>& shapes, const std::string& from) {
      exported->check_shapes(shapes, from);
    };
  }
  auto data = read_dataset(table, file_.path.parent_path(), reading).to(options_.dtype, options_.device);
  if (loss->is_of_output() && data.target_kind() == TargetKind::kValues && data.outputs() == 0) {
    throw InvalidArgument(
        fmt::format("targets = \"none\" is for a model that gives its loss itself (loss = \"exported\"), and loss = "
                    "\"{}\" compares "
                    "with targets",
                    file_.stages[stage].loss));
  }
  check_targets(data, wanted);
  for (const auto& text : data.notes()) {
    note(text);
  }
  return data;
}

/// How the first stage that is a table reads tables; null where there is none before `stage`.
std::shared_ptr<const TableEncoding> Pipeline::encoding_before(std::size_t stage) const {
  for (std::size_t k = 0; k < stage && !reading_; ++k) {
    const auto& train = file_.stages[k].train;
    if (has_columns(train)) {
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
  const auto& description = file_.stages.at(stage);
  try {
    DataReading reading;
    reading.table = encoding_before(stage);
    reading.standardize = !model_->is_trained();  // whose weights were made for numbers as they are
    const bool trained = fresh_.count(stage) == 0 && is_trained(stage);
    if (trained) {
      reading.head = checkpoint_classes(description.checkpoint, *model_);
      reading.standardize = checkpoint_metadata(description.checkpoint, "standardize") == "true";
    }
    if (stage > 0) {
      check_channels_said(description.train, file_.stages[stage - 1]);
    }
    const auto* exported = trained ? nullptr : dynamic_cast<const ExportedModel*>(model_.get());  // as training begins
    const auto start = exported != nullptr ? checkpoint_classes(exported->file(), *model_) : HeadClasses();
    if (exported != nullptr && lists_outputs(description.train, start, exported->has_head())) {
      reading.head = start;
    }
    auto data = read(description.train, stage, reading);
    if (reading.head.from.empty() && language_model_ != nullptr && data.target_kind() == TargetKind::kClasses &&
        data.head_outputs() > 0) {
      const auto head = checkpoint_classes(language_model_->directory(), *model_);
      if (!head.names.empty() && all_among(data.classes(), head.names)) {
        reading.head = head;  // training starts from a head whose outputs have these names
        data = read(description.train, stage, reading);
      } else if (head.outputs > 0) {
        note(fmt::format("stage {}: the head in {} is one of {}, not of {}: training starts from {}", description.name,
                         head.from,
                         head.names.empty() ? fmt::format("{} classes without names", head.outputs)
                                            : fmt::format("{}", fmt::join(head.names, ", ")),
                         fmt::join(data.classes(), ", "),
                         head.outputs == data.outputs() ? "it, its outputs in this order" : "a new one"));
      }
    }
    if (exported != nullptr && reading.head.from.empty() && data.target_kind() == TargetKind::kClasses &&
        data.head_outputs() > 0) {
      if (exported->has_head() && data.outputs() != start.outputs && start.outputs > 0) {
        note(fmt::format(
            "stage {}: {} has {} outputs, and the examples have {} classes: training starts from a new head",
            description.name, start.from, start.outputs, data.outputs()));
      } else if (all_among(data.classes(), start.names) || start.are_places(data.classes())) {
        reading.head = start;  // training goes on with the outputs that it has
        data = read(description.train, stage, reading);
      } else if (data.outputs() == start.outputs && !description.train.contains("classes")) {
        note(fmt::format("stage {}: the classes {} are taken for the outputs of {} in this order", description.name,
                         fmt::join(data.classes(), ", "), start.from));
      }
    }
    check_classes_differ(data, /*fresh=*/!trained);
    return data_.emplace(stage, std::move(data)).first->second;
  } catch (const ClassesNeeded& error) {
    throw ClassesNeeded(fmt::format("{}: stage {}: {}", file_.path.string(), description.name, error.what()),
                        error.labels, error.outputs);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", file_.path.string(), description.name, error.what()));
  }
}

/// The task of each example of a primed stage; empty for any other.
std::vector<std::string> Pipeline::tasks(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  if (description.priming.empty()) {
    return {};
  }
  const auto& data = training_data(stage);
  try {
    return description.tasks.empty()
               ? tables_of_examples(description.train, data)
               : read_example_column(description.train, file_.path.parent_path(), description.tasks, data);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("stage {}: tasks: {}", description.name, error.what()));
  }
}

void Pipeline::disregard_checkpoint(std::size_t stage) const {
  if (fresh_.insert(stage).second) {
    data_.erase(data_.lower_bound(stage), data_.end());  // later tables are read by this stage's columns
    validation_.erase(validation_.lower_bound(stage), validation_.end());
  }
}

/// Examples that a stage has not seen, `where` of the pipeline, with targets numbered as it numbers its classes.
Dataset Pipeline::read_unseen(const nlohmann::json& said, std::size_t stage, const std::string& where) const {
  const auto& description = file_.stages.at(stage);
  const auto& trained_on = training_data(stage);
  nlohmann::json table;
  Dataset data;
  try {
    table = with_keys_of(description.train, said);
    DataReading reading;
    reading.known_classes = trained_on.classes();
    if (const auto& checkpoint = description.checkpoint;
        fs::is_directory(checkpoint) && !is_whence_checkpoint(checkpoint) && trained_on.head_outputs() > 0) {
      const auto head = checkpoint_classes(checkpoint, *model_);  // numbers too are classes by id2label
      if (!head.names.empty() && head.names == trained_on.classes()) {
        reading.head = head;
        reading.known_classes.clear();
      }
    }
    reading.table = trained_on.table() ? trained_on.table() : encoding_before(stage);
    data = read(table, stage, reading);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: {}: {}", file_.path.string(), where, error.what()));
  }
  if (data.input_shape() != trained_on.input_shape() || data.outputs() != trained_on.outputs()) {
    throw InvalidArgument(fmt::format("{}: {}: inputs [{}] and {} outputs, expected [{}] and {} as in stage {}",
                                      file_.path.string(), where, fmt::join(data.input_shape(), ", "), data.outputs(),
                                      fmt::join(trained_on.input_shape(), ", "), trained_on.outputs(),
                                      description.name));
  }
  if (!same_channels(data, trained_on)) {
    const auto text = fmt::format("{}: {}, and stage {} has {}", where, channels_text(table), description.name,
                                  channels_text(description.train));
    if (same_format(table, description.train)) {
      throw InvalidArgument(
          fmt::format("{}: {}: give the same, or leave both out of the queries", file_.path.string(), text));
    }
    note(text);  // one of them may be stored as the model takes it
  } else if (!same_format(table, description.train) && (data.mean().defined() || data.deviation().defined()) &&
             channels_text(table) != channels_text(said)) {
    note(fmt::format("{}: {}, as stage {} has; mean = [0], std = [1] says that they are stored so already", where,
                     channels_text(table), description.name));
  }
  if (data.texts().asked.defined() != trained_on.texts().asked.defined()) {
    throw InvalidArgument(fmt::format("{}: {}: key label-words is {}, but stage {} was trained with{} it",
                                      file_.path.string(), where, data.texts().asked.defined() ? "given" : "missing",
                                      description.name, data.texts().asked.defined() ? "out" : ""));
  }
  return data;
}

const Dataset* Pipeline::validation_data(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  if (description.validation.is_null()) {
    return nullptr;
  }
  const auto found = validation_.find(stage);
  if (found != validation_.end()) {
    return &found->second;
  }
  auto data = read_unseen(description.validation, stage, fmt::format("stage {}: validation", description.name));
  return &validation_.emplace(stage, std::move(data)).first->second;
}

Dataset Pipeline::queries(const std::string& split, std::int64_t limit) const {
  const auto found = file_.queries.find(split);
  if (found == file_.queries.end()) {
    throw InvalidArgument(fmt::format("{}: {}", file_.path.string(), unknown_name("queries", split, query_splits())));
  }
  const auto data = read_unseen(found->second, file_.stages.size() - 1, fmt::format("[queries.{}]", split));
  return limit > 0 && limit < data.size() ? data.take(at::arange(limit)) : data;
}

}  // namespace whence
