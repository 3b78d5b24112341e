#include "whence/stages/pipeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/core/json.h"
#include "whence/models/checkpoint.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/text_model.h"
#include "whence/text/tokenizer.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// What an adapter says that it is. One that training wrote may be trained over with another tuning.
void take_tuning(StageDescription& stage) {
  try {
    if (!stage.says_tuning) {
      stage.tuning = peft_tuning(stage.checkpoint);
    } else if (!is_whence_checkpoint(stage.checkpoint)) {
      check_same_tuning(stage.tuning, stage.checkpoint);
    }
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("stage {}: {}", stage.name, error.what()));
  }
}

/// A misspelt key is one before it is a change to what was trained.
void check_keys(const StageDescription& stage) {
  try {
    check_data_keys(stage.train);
    if (!stage.validation.is_null()) {
      check_data_keys(stage.validation);
    }
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("stage {}: {}", stage.name, error.what()));
  }
}

}  // namespace

Pipeline::Pipeline(const fs::path& path, const RunOptions& options)
    : file_(read_pipeline_file(path)), options_(options), seed_(options.seed.value_or(file_.seed)) {
  try {
    open_model();
    for (auto& stage : file_.stages) {
      check_keys(stage);
      const bool exported = dynamic_cast<const ExportedModel*>(model_.get()) != nullptr;
      if (stage.checkpoint.extension() != ".safetensors" && language_model_ == nullptr &&
          !(exported && is_exported(stage.checkpoint))) {
        throw InvalidArgument(fmt::format("stage {}: checkpoint = {}, expected a .safetensors file{}", stage.name,
                                          stage.checkpoint.string(), exported ? " or an exported model (.pt2)" : ""));
      }
      if (is_adapter(stage.checkpoint)) {
        take_tuning(stage);
      }
    }
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: {}", path.string(), error.what()));
  }
}

void Pipeline::open_model() {
  const auto& told = file_.model;
  if (!told.spec.empty()) {
    model_spec_ = told.spec;
    model_ = create<Model>(model_spec_);
    if (const auto* exported = dynamic_cast<const ExportedModel*>(model_.get())) {
      for (const auto& text : exported->notes()) {
        note(text);
      }
      if (model_->takes_texts()) {
        return open_texts(exported->vocabulary(), exported->context());
      }
    }
  } else {
    const std::string shown =  // paths may be any bytes, what is written is UTF-8
        nlohmann::json::parse(json_text(nlohmann::json(told.folder.string())));
    model_spec_ = "transformer:directory=" + shown;
    model_ =
        open_model_folder(told.folder, told.ignore_adapter, ", or leave it out with adapter = \"ignore\" in [model]");
  }
  language_model_ = dynamic_cast<const LanguageModel*>(model_.get());
  if (language_model_ == nullptr) {
    if (!told.tokenizer.empty()) {
      throw InvalidArgument("[model]: tokenizer is for a model of texts");
    }
    return;
  }
  for (const auto& text : language_model_->notes()) {
    note(text);
  }
  open_texts(language_model_->vocabulary(), language_model_->context());
}

void Pipeline::open_texts(std::int64_t vocabulary, std::int64_t context) {
  const auto& told = file_.model;
  reading_ = TextReading{nullptr, vocabulary, context};
  const auto own = language_model_ == nullptr ? fs::path() : language_model_->directory() / "tokenizer.json";
  const auto& tokenizer = told.tokenizer.empty() ? own : told.tokenizer;
  if (!told.tokenizer.empty() || fs::exists(own)) {
    reading_->tokenizer = std::make_shared<const Tokenizer>(tokenizer);
    for (const auto& text : reading_->tokenizer->notes()) {
      note(text);
    }
  }
  tokenizer_ = fs::is_directory(tokenizer) ? tokenizer / "tokenizer.json" : tokenizer;
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
  if (language_model_ != nullptr) {
    return text_model_files(language_model_->directory(), tokenizer_);
  }
  auto files = model_->files();
  if (!tokenizer_.empty()) {
    files.push_back(tokenizer_);
  }
  return files;
}

std::size_t Pipeline::stage_index(const std::string& name) const {
  std::vector<std::string> known;
  for (std::size_t i = 0; i < file_.stages.size(); ++i) {
    if (file_.stages[i].name == name) {
      return i;
    }
    known.push_back(file_.stages[i].name);
  }
  throw InvalidArgument(fmt::format("{}: {}", file_.path.string(), unknown_name("stage", name, known)));
}

std::vector<std::string> Pipeline::query_splits() const {
  std::vector<std::string> out;
  for (const auto& [split, table] : file_.queries) {
    out.push_back(split);
  }
  return out;
}

}  // namespace whence
