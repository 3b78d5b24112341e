// The part of Pipeline that trains: what training goes on from, and what a checkpoint says of it afterwards.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>

#include "whence/core/digest.h"
#include "whence/core/json.h"
#include "whence/core/output.h"
#include "whence/data/dataset_digest.h"
#include "whence/data/safetensors.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/detail/checkpoint_place.h"
#include "whence/stages/detail/training_record.h"
#include "whence/stages/detail/trajectory.h"
#include "whence/stages/pipeline.h"
#include "whence/stages/unfinished.h"

namespace whence {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

constexpr const char* kTrainedFrom = "trained-from";  // keys of a checkpoint's metadata
constexpr const char* kTraining = "training";
constexpr const char* kChangedMeanwhile = "changed-meanwhile";  // of the record: files changed after they were read

/// When the program began, and read no file before.
const timespec kStarted = detail::now_of_files();

/// The metadata's JSON; an empty object where it is none.
json parsed(const std::string& text) { return json_object(text).value_or(json::object()); }

/// What a checkpoint says of its training; empty where it came from elsewhere.
std::map<std::string, std::string> metadata_of(const fs::path& checkpoint) {
  for (const auto& file : checkpoint_files(checkpoint)) {
    if (file.extension() == ".safetensors") {
      return read_safetensors_metadata(file);
    }
  }
  return {};
}

/// The iterations after which snapshots are taken: training's end after `count` equal segments.
std::vector<std::int64_t> snapshot_iterations(const StageDescription& stage, std::int64_t examples) {
  std::vector<std::int64_t> out;
  if (stage.snapshots == 0) {
    return out;
  }
  std::int64_t total = 0;
  try {
    total = create<Optimizer>(stage.optimizer)->planned_iterations(examples);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(
        fmt::format("snapshots = {} with optimizer {}: {}", stage.snapshots, stage.optimizer, error.what()));
  }
  if (total < stage.snapshots) {
    throw InvalidArgument(
        fmt::format("snapshots = {}, expected at most training's {} iterations", stage.snapshots, total));
  }
  for (std::int64_t k = 1; k <= stage.snapshots; ++k) {
    out.push_back(total / stage.snapshots * k + total % stage.snapshots * k / stage.snapshots);
  }
  return out;
}

void write_unfinished(const fs::path& path, const TrainingState& state, const json& record) {
  ParameterSet tensors;
  const auto add = [&](const std::string& group, const TensorList& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      tensors.add(fmt::format("{}.{:06}", group, i), values[i].detach().cpu().contiguous());
    }
  };
  add("theta", state.theta);
  for (std::size_t i = 0; i < state.memory.size(); ++i) {
    add(fmt::format("memory.{:06}", i), state.memory[i]);
  }
  write_sealed(path, tensors,
               {{"iteration", std::to_string(state.iteration)},
                {"time", fmt::format("{}", state.time)},
                {kTrainedFrom, json_text(record)}});
}

/// `parent` is the stage before, `anew` what to type to begin anew.
TrainingState read_unfinished(const fs::path& path, const json& record, const TensorList& like,
                              const std::string& parent, const std::string& anew) {
  const auto [tensors, metadata] = read_sealed(path);
  const auto held = metadata.find(kTrainedFrom);
  const auto changed = detail::changed_records(held == metadata.end() ? json::object() : parsed(held->second),
                                               parsed(json_text(record)), parent);
  if (!changed.empty()) {
    throw InvalidArgument(
        fmt::format("{} holds training that began otherwise ({}); finish it as it began, or begin anew: {}",
                    path.string(), fmt::join(changed, "; "), anew));
  }
  const auto group = [&](const std::string& name) {
    TensorList out;
    const auto found = tensors.select(name + ".");
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto key = fmt::format("{}.{:06}", name, i);
      if (!found.contains(key)) {
        throw DataError(fmt::format("{}: {} is missing; begin anew: {}", path.string(), key, anew));
      }
      out.push_back(found.at(key).clone().to(like.front().options()));
    }
    return out;
  };
  TrainingState state;
  state.theta = group("theta");
  state.iteration = metadata_number<std::int64_t>(metadata, "iteration", path);
  state.time = metadata_number<double>(metadata, "time", path);
  const auto same_shape = [](const at::Tensor& a, const at::Tensor& b) { return a.sizes() == b.sizes(); };
  if (!std::equal(state.theta.begin(), state.theta.end(), like.begin(), like.end(), same_shape)) {
    throw DataError(fmt::format("{}: its parameters are not those of the stage; begin anew: {}", path.string(), anew));
  }
  for (std::size_t i = 0;; ++i) {
    auto memory = group(fmt::format("memory.{:06}", i));
    if (memory.empty()) {
      break;
    }
    state.memory.push_back(std::move(memory));
  }
  return state;
}

}  // namespace

fs::path unfinished_path(const fs::path& checkpoint) {
  auto path = checkpoint.lexically_normal().string();
  while (path.ends_with('/')) {
    path.pop_back();
  }
  return path + ".unfinished";
}

bool Pipeline::is_trained(std::size_t stage) const { return !checkpoint_files(stages_.at(stage).checkpoint).empty(); }

std::optional<StageTraining> Pipeline::training(std::size_t stage) const {
  const auto metadata = metadata_of(stages_.at(stage).checkpoint);
  const auto found = metadata.find(kTraining);
  if (found == metadata.end()) {
    return {};
  }
  const JsonView told(parsed(found->second), stages_.at(stage).checkpoint.string() + ": metadata: " + kTraining);
  StageTraining out;
  out.summary.converged = told.value("converged", false);
  out.summary.iterations = told.value("iterations", std::int64_t{0});
  out.stationarity = {told.value("objective", 0.0), told.value("gradient-norm", 0.0),
                      told.value("data-gradient-norm", 0.0), told.value("relative-gradient-norm", 0.0)};
  out.examples = told.value("examples", std::int64_t{0});
  out.parameters = told.value("parameters", std::int64_t{0});
  return out;
}

json Pipeline::settings(std::size_t stage) const {
  const auto& description = stages_.at(stage);
  return {{"seed", own_seed_},
          {"model", model_table_},
          {"train", description.train},
          {"tuning", resolved_spec<Tuning>(description.tuning)},
          {"loss", resolved_spec<Loss>(description.loss)},
          {"weight-decay", description.weight_decay},
          {"optimizer", resolved_spec<Optimizer>(description.optimizer)}};
}

/// What else a training that is not at its end rests on.
json Pipeline::unfinished_settings(std::size_t stage, std::int64_t examples) const {
  return {{"seed", seed_},
          {"dtype", c10::toString(options_.dtype)},
          {"examples", examples},
          {"snapshots", stages_.at(stage).snapshots}};
}

json Pipeline::record(std::size_t stage, const Dataset& data, const TrainingSummary& summary) const {
  auto files = data.files();
  const auto model = model_files();
  files.insert(files.end(), model.begin(), model.end());
  const auto folder = path_.parent_path();
  return {{"settings", settings(stage)},
          {"run", unfinished_settings(stage, data.size())},
          {"converged", summary.converged},
          {"data", dataset_digest(data)},
          {"files", detail::file_digests(files, folder)},
          {"parent", stage == 0 ? json::object()
                                : detail::file_digests(checkpoint_files(stages_[stage - 1].checkpoint), folder)}};
}

std::vector<std::string> Pipeline::changes(std::size_t stage) const {
  const auto& description = stages_.at(stage);
  const auto metadata = metadata_of(description.checkpoint);
  const auto found = metadata.find(kTrainedFrom);
  if (found == metadata.end()) {
    return {};
  }
  const auto record = parsed(found->second);
  auto then = detail::table_in(record, "settings"), now = parsed(json_text(settings(stage)));
  if (record.contains("converged") && record["converged"] == true) {  // whichever way it came to the minimum
    for (const char* way : {"optimizer", "seed"}) {
      then.erase(way);
      now.erase(way);
    }
  }
  if (!then.contains("seed")) {  // of an earlier version
    now.erase("seed");
  }
  auto out = detail::changed_settings(then, now);
  const auto folder = path_.parent_path();
  const auto since = record.contains(kChangedMeanwhile)
                         ? timespec{}
                         : detail::written(checkpoint_files(description.checkpoint).front());
  for (const auto& file : detail::changed_files(detail::table_in(record, "files"), folder, since)) {
    out.push_back(fmt::format("{} has changed", file));
  }
  if (!detail::changed_files(detail::table_in(record, "parent"), folder, since).empty()) {
    out.push_back(fmt::format("stage {} has other weights", stages_[stage - 1].name));
  }
  for (const auto& file : snapshot_files(stage)) {
    if (!fs::exists(file)) {
      out.push_back(fmt::format("{} is missing", file.string()));
    }
  }
  return out;
}

void Pipeline::write_checkpoint(std::size_t stage, const Stage& trained, const TensorList& theta,
                                std::map<std::string, std::string> metadata) const {
  const auto& description = stages_.at(stage);
  const auto values = trained.objective.trained().with(detach(theta)).to(options_.dtype, at::kCPU);
  if (description.checkpoint.extension() == ".safetensors") {
    const auto& data = trained.objective.data();
    metadata["stage"] = description.name;
    metadata["model"] = model_spec_;
    metadata["tuning"] = description.tuning;  // which also says that training wrote it
    if (!data.classes().empty()) {
      metadata["classes"] = json_text(nlohmann::json(data.classes()));
    }
    if (data.table()) {
      metadata["standardize"] = data.table()->standardize ? "true" : "false";
    }
    write_safetensors(description.checkpoint, values, metadata);
  } else {
    const auto whole = trained.objective.merge(values.values(), trained.parent);
    language_model_->write_directory(description.checkpoint, whole, trained.objective.data().classes(), metadata);
  }
}

void Pipeline::disregard_checkpoint(std::size_t stage) const {
  if (fresh_.insert(stage).second) {
    data_.erase(data_.lower_bound(stage), data_.end());  // later tables are read by this stage's columns
  }
}

StageTraining Pipeline::train(std::size_t stage, const Progress& progress, bool anew) const {
  const auto& description = stages_.at(stage);
  disregard_checkpoint(stage);
  const auto model_folder = language_model_ == nullptr ? fs::path() : language_model_->directory();
  detail::check_checkpoint_place(description.name, description.checkpoint, model_folder);
  if (const auto held = data_.find(stage); held != data_.end()) {
    const auto& files = held->second.files();  // read hours ago, perhaps, before other stages were trained
    if (std::any_of(files.begin(), files.end(), [](const auto& file) { return detail::newer(file, kStarted); })) {
      data_.erase(held, data_.end());
    }
  }
  const auto since = detail::now_of_files();
  const auto fresh = untrained(stage, load(stage));
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
    state = read_unfinished(unfinished, record, fresh.theta, stage == 0 ? "" : stages_[stage - 1].name,
                            fmt::format("whence train {} --stage {} --force", path_.string(), description.name));
  }
  std::optional<detail::SnapshotWriter> snapshots;
  try {
    snapshots.emplace(fresh, snapshot_files(stage), snapshot_iterations(description, data.size()),
                      Digest().add(json_text(record)).text(), state);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("{}: stage {}: {}", path_.string(), description.name, error.what()));
  }
  auto saved = std::chrono::steady_clock::now();
  constexpr std::chrono::seconds kSavePeriod(60);
  const auto watch = [&](ProgressEvent event) {
    event.phase += " " + description.name;
    snapshots->after_iteration(state);
    try {
      report(progress, event);
    } catch (const Interrupted&) {
      write_unfinished(unfinished, state, record);
      throw;
    }
    if (std::chrono::steady_clock::now() - saved > kSavePeriod) {
      write_unfinished(unfinished, state, record);
      saved = std::chrono::steady_clock::now();
    }
  };
  StageTraining out;
  out.examples = data.size();
  out.parameters = fresh.objective.trained().entries();
  out.summary = fresh.optimizer->minimise(fresh.objective, fresh.parent, state,
                                          Random(seed_).stream("training of stage " + description.name), watch);
  check_finite(state.theta, "a trained parameter");
  try {
    auto told = record;
    told["converged"] = out.summary.converged;
    told["run"].erase("snapshots");  // which the weights do not depend on
    for (const char* part : {"files", "parent"}) {
      if (!detail::changed_files(record[part], path_.parent_path(), since).empty()) {
        told[kChangedMeanwhile] = true;
      }
    }
    std::map<std::string, std::string> metadata{{kTrainedFrom, json_text(told)}};
    {
      const ProgressScope scope(progress, {"check " + description.name, 0, 0, ""});
      out.stationarity = stationarity(fresh.objective, state.theta, fresh.parent);
    }
    metadata[kTraining] =
        json_text(nlohmann::json{{"converged", out.summary.converged},
                                 {"iterations", out.summary.iterations},
                                 {"examples", out.examples},
                                 {"parameters", out.parameters},
                                 {"objective", out.stationarity.objective},
                                 {"gradient-norm", out.stationarity.gradient_norm},
                                 {"data-gradient-norm", out.stationarity.data_gradient_norm},
                                 {"relative-gradient-norm", out.stationarity.relative_gradient_norm}});
    write_checkpoint(stage, fresh, state.theta, metadata);
  } catch (...) {  // what was trained is not lost with it
    write_unfinished(unfinished, state, record);
    throw;
  }
  fs::remove(unfinished);
  return out;
}

}  // namespace whence
