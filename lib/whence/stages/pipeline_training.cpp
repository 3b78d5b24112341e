// The part of Pipeline that trains a stage and writes its checkpoint.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/digest.h"
#include "whence/core/json.h"
#include "whence/core/output.h"
#include "whence/core/seconds.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/detail/checkpoint_place.h"
#include "whence/stages/detail/training_record.h"
#include "whence/stages/detail/trajectory.h"
#include "whence/stages/detail/unfinished.h"
#include "whence/stages/pipeline.h"
#include "whence/stages/unfinished.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// When the program began, and read no file before.
const timespec kStarted = detail::now_of_files();

}  // namespace

PeftAdapter Pipeline::as_adapter(std::size_t stage, const Stage& trained, const TensorList& theta) const {
  const auto& description = file_.stages.at(stage);
  const auto& objective = trained.objective;
  const auto base = stage == 0 ? language_model_->directory() : file_.stages[stage - 1].checkpoint;
  try {
    return to_peft(description.tuning, *model_, objective.trained().with(theta),
                   objective.parent_layout().with(trained.parent),
                   fs::is_directory(base) && !is_adapter(base) ? base : fs::path());
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", file_.path.string(), description.name, error.what()));
  }
}

void Pipeline::check_checkpoint_form(std::size_t stage, const Stage& untrained) const {
  const auto& description = file_.stages.at(stage);
  if (description.checkpoint.extension() == ".safetensors") {
    return;
  }
  if (is_exported(description.checkpoint)) {
    throw InvalidArgument(
        fmt::format("{}: stage {}: checkpoint = {} is an exported model, which training does not write: write "
                    "checkpoint = \"{}.safetensors\"",
                    file_.path.string(), description.name, description.checkpoint.string(),
                    description.checkpoint.stem().string()));
  }
  if (has_peft_type(description.tuning)) {
    as_adapter(stage, untrained, untrained.theta);
  } else if (untrained.objective.merge(untrained.theta, untrained.parent).additions()) {
    throw InvalidArgument(
        fmt::format("{}: stage {}: checkpoint = {} is a folder, and PEFT has none that holds tuning = \"{}\": write "
                    "checkpoint = \"{}.safetensors\"",
                    file_.path.string(), description.name, description.checkpoint.string(), description.tuning,
                    description.checkpoint.string()));
  }
}

void Pipeline::write_checkpoint(std::size_t stage, const Stage& trained, const TensorList& theta,
                                std::map<std::string, std::string> metadata) const {
  const auto& description = file_.stages.at(stage);
  const auto values = trained.objective.trained().with(detach(theta)).to(options_.dtype, at::kCPU);
  const bool adapter = has_peft_type(description.tuning);
  if (adapter || description.checkpoint.extension() == ".safetensors") {
    metadata["whence"] = "1";
    metadata["stage"] = description.name;
    metadata["model"] = model_spec_;
    metadata["tuning"] = description.tuning;  // which also says that training wrote it
    metadata.merge(data_metadata(trained.objective.data()));
    if (const auto names = number_names(stage); !names.empty()) {
      metadata[kNumberNames] = json_text(nlohmann::json(names));
    }
  }
  if (description.checkpoint.extension() == ".safetensors") {
    write_sealed(description.checkpoint, values, std::move(metadata));
  } else if (adapter) {
    write_peft(description.checkpoint, as_adapter(stage, trained, values.values()), metadata);
  } else {
    const auto whole = trained.objective.merge(values.values(), trained.parent);
    language_model_->write_directory(description.checkpoint, whole, trained.objective.data().classes(), metadata);
  }
}

StageTraining Pipeline::train(std::size_t stage, const Progress& progress, bool anew) const {
  const auto& description = file_.stages.at(stage);
  disregard_checkpoint(stage);
  const auto model_folder = language_model_ == nullptr ? fs::path() : language_model_->directory();
  detail::check_checkpoint_place(description.name, description.checkpoint, model_folder);
  if (const auto held = data_.find(stage); held != data_.end()) {
    const auto& files = held->second.files();  // read hours ago, perhaps, before other stages were trained
    if (std::any_of(files.begin(), files.end(), [](const auto& file) { return detail::newer(file, kStarted); })) {
      data_.erase(held, data_.end());
    }
  }
  validation_.erase(validation_.lower_bound(stage), validation_.end());  // likewise
  const auto since = detail::now_of_files();
  validation_data(stage);  // before its optimizer is made, which then has them
  const auto fresh = begun(stage, load(stage), progress);
  check_checkpoint_form(stage, fresh);
  check_validation(stage, fresh);
  const auto& data = fresh.objective.data();
  auto record = this->record(stage, data, {});  // now: files may change while training goes on
  const auto unfinished = unfinished_path(description.checkpoint);
  make_folder(unfinished.parent_path());
  const auto lock = OutputLock::beside(description.checkpoint);  // what cannot be written is found before training
  TrainingState state{fresh.theta, 0, {}};
  if (anew) {
    fs::remove(unfinished);
  }
  if (fs::exists(unfinished)) {
    state = detail::read_unfinished(
        unfinished, record, fresh.theta, stage == 0 ? "" : file_.stages[stage - 1].name,
        fmt::format("whence train {} --stage {} --force", file_.path.string(), description.name));
  }
  std::optional<detail::SnapshotWriter> snapshots;
  try {
    snapshots.emplace(fresh, snapshot_files(stage),
                      segment_ends(description.optimizer, fresh.objective.terms(), description.snapshots),
                      Digest().add(json_text(record)).text(), state);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", file_.path.string(), description.name, error.what()));
  }
  const auto begin = Clock::now();
  detail::SavePace pace;
  const auto watch = [&](ProgressEvent event) {
    event.phase += " " + description.name;
    snapshots->after_iteration(state);
    try {
      report(progress, event);
    } catch (const Interrupted&) {
      detail::write_unfinished(unfinished, state, record);
      throw;
    }
    if (const double now = seconds_since(begin); pace.is_due(now)) {
      detail::write_unfinished(unfinished, state, record);
      pace.saved(now, seconds_since(begin));
    }
  };
  StageTraining out;
  out.examples = data.size();
  out.parameters = fresh.objective.trained().entries();
  try {
    out.summary = fresh.optimizer->minimise(fresh.objective, fresh.parent, state,
                                            Random(seed_).stream("training of stage " + description.name), watch);
    tell_inverse_time(*fresh.optimizer, state, out.summary);
    check_finite(state.theta, "a trained parameter");
  } catch (const NumericalError& error) {
    throw in_stage(fresh, error);
  }
  try {
    auto told = record;
    told["converged"] = out.summary.converged;
    told["run"].erase("snapshots");  // which the weights do not depend on
    for (const char* part : {"files", "parent"}) {
      if (!detail::changed_files(record[part], file_.path.parent_path(), since).empty()) {
        told[detail::kChangedMeanwhile] = true;
      }
    }
    std::map<std::string, std::string> metadata{{detail::kTrainedFrom, json_text(told)}};
    {
      const ProgressScope scope(progress, {"check " + description.name, 0, 0, ""});
      auto ended = fresh;
      ended.theta = state.theta;
      out.stationarity = stationarity(ended);
      out.stationarity_of = stationarity_key(ended);
    }
    metadata[detail::kTraining] = detail::training_text(out);
    write_checkpoint(stage, fresh, state.theta, metadata);
  } catch (...) {  // what was trained is not lost with it
    detail::write_unfinished(unfinished, state, record);
    throw;
  }
  fs::remove(unfinished);
  return out;
}

}  // namespace whence
