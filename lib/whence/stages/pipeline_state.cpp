// The part of Pipeline that knows what its stages' checkpoints were trained with, and whether that holds today.
#include <fmt/format.h>

#include "whence/core/digest.h"
#include "whence/core/json.h"
#include "whence/data/dataset_digest.h"
#include "whence/data/safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/detail/training_record.h"
#include "whence/stages/detail/trajectory.h"
#include "whence/stages/pipeline.h"

namespace whence {
namespace fs = std::filesystem;
using nlohmann::json;

std::vector<fs::path> Pipeline::snapshot_files(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  std::vector<fs::path> out;
  for (std::int64_t number = 1; number <= description.snapshots; ++number) {
    out.push_back(detail::snapshot_path(description.checkpoint, number));
  }
  return out;
}

bool Pipeline::is_trained(std::size_t stage) const {
  return !checkpoint_files(file_.stages.at(stage).checkpoint).empty();
}

std::optional<StageTraining> Pipeline::training(std::size_t stage) const {
  const auto& checkpoint = file_.stages.at(stage).checkpoint;
  const auto metadata = checkpoint_metadata(checkpoint);
  const auto found = metadata.find(detail::kTraining);
  if (found == metadata.end()) {
    return {};
  }
  return detail::read_training(found->second, checkpoint.string() + ": metadata: " + detail::kTraining);
}

std::vector<fs::path> Pipeline::trained_from(std::size_t stage) const {
  const auto metadata = checkpoint_metadata(file_.stages.at(stage).checkpoint);
  const auto found = metadata.find(detail::kTrainedFrom);
  std::vector<fs::path> out;
  if (found != metadata.end()) {
    const auto files = detail::table_in(detail::parse_record(found->second), "files");
    for (const auto& [name, digest] : files.items()) {
      const auto file = (file_.path.parent_path() / name).lexically_normal();
      if (fs::exists(file)) {
        out.push_back(file);
      }
    }
  }
  return out;
}

json Pipeline::settings(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  auto model = file_.model.table;
  if (model.contains("spec")) {
    model["spec"] = resolved_spec<Model>(file_.model.spec);
  }
  json out{{"seed", file_.seed},
           {"model", std::move(model)},
           {"train", description.train},
           {"tuning", resolved_spec<Tuning>(description.tuning)},
           {"loss", resolved_spec<Loss>(description.loss)},
           {"weight-decay", description.weight_decay},
           {"optimizer", resolved_spec<Optimizer>(description.optimizer)}};
  if (!description.head_start.empty()) {
    out["head-start"] = description.head_start;
  }
  if (!description.priming.empty()) {
    out["priming"] = resolved_spec<Priming>(description.priming);
    out["tasks"] = description.tasks;
  }
  if (!description.validation.is_null()) {
    out["validation"] = description.validation;
    out["patience"] = description.patience;
    out["validation-every"] = description.validation_every;
    out["validation-draws"] = description.validation_draws;
    out["validation-by"] = description.validation_by;
  }
  return out;
}

/// What else a training that is not at its end rests on.
json Pipeline::unfinished_settings(std::size_t stage, std::int64_t examples) const {
  return {{"seed", seed_},
          {"dtype", c10::toString(options_.dtype)},
          {"examples", examples},
          {"snapshots", file_.stages.at(stage).snapshots}};
}

json Pipeline::record(std::size_t stage, const Dataset& data, const TrainingSummary& summary) const {
  auto files = data.files();
  const auto model = model_files();
  files.insert(files.end(), model.begin(), model.end());
  auto digest = dataset_digest(data);
  if (const auto* validation = validation_data(stage)) {
    files.insert(files.end(), validation->files().begin(), validation->files().end());
    digest = Digest().add(digest).add(dataset_digest(*validation)).text();
  }
  const auto folder = file_.path.parent_path();
  return {{"settings", settings(stage)},
          {"run", unfinished_settings(stage, data.size())},
          {"converged", summary.converged},
          {"data", digest},
          {"files", detail::file_digests(files, folder)},
          {"parent", stage == 0 ? json::object()
                                : detail::file_digests(checkpoint_files(file_.stages[stage - 1].checkpoint), folder)}};
}

std::vector<std::string> Pipeline::changes(std::size_t stage) const {
  const auto& description = file_.stages.at(stage);
  const auto metadata = checkpoint_metadata(description.checkpoint);
  const auto found = metadata.find(detail::kTrainedFrom);
  if (found == metadata.end()) {
    return {};
  }
  const auto record = detail::parse_record(found->second);
  auto then = detail::recorded_settings(record), now = detail::parse_record(json_text(settings(stage)));
  if (record.contains("converged") && record["converged"] == true) {  // whichever way it came to the minimum
    for (const char* way : {"optimizer", "seed", "head-start"}) {
      then.erase(way);
      now.erase(way);
    }
  }
  if (!then.contains("seed")) {  // of an earlier version
    now.erase("seed");
  }
  auto out = detail::changed_settings(then, now);
  const auto folder = file_.path.parent_path();
  const auto since = record.contains(detail::kChangedMeanwhile)
                         ? timespec{}
                         : detail::written(checkpoint_files(description.checkpoint).front());
  for (const auto& file : detail::changed_files(detail::table_in(record, "files"), folder, since)) {
    out.push_back(fmt::format("{} has changed", file));
  }
  if (!detail::changed_files(detail::table_in(record, "parent"), folder, since).empty()) {
    out.push_back(fmt::format("stage {} has other weights", file_.stages[stage - 1].name));
  }
  for (const auto& file : snapshot_files(stage)) {
    if (!fs::exists(file)) {
      out.push_back(fmt::format("{} is missing", file.string()));
    }
  }
  return out;
}

}  // namespace whence
