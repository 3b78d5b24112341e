// The part of Pipeline that trains: what training goes on from, and what a checkpoint says of it afterwards.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>

#include "whence/core/files.h"
#include "whence/data/safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/detail/checkpoint_place.h"
#include "whence/stages/detail/training_record.h"
#include "whence/stages/detail/trajectory.h"
#include "whence/stages/pipeline.h"

namespace whence {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

constexpr const char* kTrainedFrom = "trained-from";  // keys of a checkpoint's metadata
constexpr const char* kTraining = "training";

/// The metadata's JSON; an empty object where it is none.
json parsed(const std::string& text) {
  auto out = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return out.is_object() ? out : json::object();
}

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

/// Where training stands when it is interrupted.
fs::path unfinished_path(const fs::path& checkpoint) {
  auto path = checkpoint.lexically_normal().string();
  while (path.ends_with('/')) {
    path.pop_back();
  }
  return path + ".unfinished";
}

void write_unfinished(const fs::path& path, const TrainingState& state, const json& settings) {
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
  write_safetensors(path, tensors,
                    {{"iteration", std::to_string(state.iteration)},
                     {"time", fmt::format("{}", state.time)},
                     {"settings", detail::one_line(settings)}});
}

TrainingState read_unfinished(const fs::path& path, const json& settings, const TensorList& like) {
  const auto metadata = read_safetensors_metadata(path);
  const auto tensors = read_safetensors(path);
  const auto held = metadata.find("settings");
  const auto changed = detail::changed_settings(held == metadata.end() ? json::object() : parsed(held->second),
                                                parsed(detail::one_line(settings)));
  if (!changed.empty()) {
    throw InvalidArgument(
        fmt::format("{} holds unfinished training with other settings ({}); finish it with those, or remove the file",
                    path.string(), fmt::join(changed, "; ")));
  }
  const auto group = [&](const std::string& name) {
    TensorList out;
    const auto found = tensors.select(name + ".");
    for (std::size_t i = 0; i < found.size(); ++i) {
      out.push_back(found.at(fmt::format("{}.{:06}", name, i)).clone().to(like.front().options()));
    }
    return out;
  };
  TrainingState state;
  state.theta = group("theta");
  state.iteration = std::stoll(metadata.at("iteration"));
  state.time = std::stod(metadata.at("time"));
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

bool Pipeline::is_trained(std::size_t stage) const { return !checkpoint_files(stages_.at(stage).checkpoint).empty(); }

std::optional<StageTraining> Pipeline::training(std::size_t stage) const {
  const auto metadata = metadata_of(stages_.at(stage).checkpoint);
  const auto found = metadata.find(kTraining);
  if (found == metadata.end()) {
    return {};
  }
  const auto told = parsed(found->second);
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
  return {{"model", model_table_},
          {"train", description.train},
          {"tuning", resolved_spec<Tuning>(description.tuning)},
          {"loss", resolved_spec<Loss>(description.loss)},
          {"weight-decay", description.weight_decay},
          {"optimizer", resolved_spec<Optimizer>(description.optimizer)}};
}

json Pipeline::unfinished_settings(std::size_t stage, std::int64_t examples) const {
  auto out = settings(stage);
  out["seed"] = seed_;
  out["dtype"] = c10::toString(options_.dtype);
  out["examples"] = examples;
  out["snapshots"] = stages_.at(stage).snapshots;
  return out;
}

json Pipeline::record(std::size_t stage, const Dataset& data, const TrainingSummary& summary) const {
  auto files = data.files();
  const auto model = model_files();
  files.insert(files.end(), model.begin(), model.end());
  const auto folder = path_.parent_path();
  return {{"settings", settings(stage)},
          {"converged", summary.converged},
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
  auto then = record.value("settings", json::object()), now = parsed(detail::one_line(settings(stage)));
  if (record.value("converged", false)) {  // whichever way it came to the minimum
    then.erase("optimizer");
    now.erase("optimizer");
  }
  auto out = detail::changed_settings(then, now);
  const auto folder = path_.parent_path();
  const auto checkpoint = checkpoint_files(description.checkpoint).front();
  for (const auto& file : detail::changed_files(record.value("files", json::object()), folder, checkpoint)) {
    out.push_back(fmt::format("{} has changed", file));
  }
  if (!detail::changed_files(record.value("parent", json::object()), folder, checkpoint).empty()) {
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
      metadata["classes"] = detail::one_line(data.classes());
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

StageTraining Pipeline::train(std::size_t stage, const Progress& progress) const {
  const auto& description = stages_.at(stage);
  disregard_checkpoint(stage);
  const auto model_folder = language_model_ == nullptr ? fs::path() : language_model_->directory();
  detail::check_checkpoint_place(description.name, description.checkpoint, model_folder);
  const auto fresh = untrained(stage, load(stage));
  const auto& data = fresh.objective.data();
  const auto settings = unfinished_settings(stage, data.size());
  const auto unfinished = unfinished_path(description.checkpoint);
  TrainingState state{fresh.theta, 0, {}};
  if (fs::exists(unfinished)) {
    state = read_unfinished(unfinished, settings, fresh.theta);
  } else {  // a folder that cannot be written to is found before training, not after
    if (unfinished.has_parent_path()) {
      fs::create_directories(unfinished.parent_path());
    }
    write_text(unfinished, "");
    fs::remove(unfinished);
  }
  std::optional<detail::SnapshotWriter> snapshots;
  try {
    snapshots.emplace(fresh, snapshot_files(stage), snapshot_iterations(description, data.size()), state);
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
      write_unfinished(unfinished, state, settings);
      throw;
    }
    if (std::chrono::steady_clock::now() - saved > kSavePeriod) {
      write_unfinished(unfinished, state, settings);
      saved = std::chrono::steady_clock::now();
    }
  };
  StageTraining out;
  out.examples = data.size();
  out.parameters = fresh.objective.trained().entries();
  out.summary = fresh.optimizer->minimise(fresh.objective, fresh.parent, state,
                                          Random(seed_).stream("training of stage " + description.name), watch);
  check_finite(state.theta, "a trained parameter");
  bool written = false;
  try {
    std::map<std::string, std::string> metadata{{kTrainedFrom, detail::one_line(record(stage, data, out.summary))}};
    write_checkpoint(stage, fresh, state.theta, metadata);
    written = true;
    fs::remove(unfinished);
    out.stationarity = stationarity(fresh.objective, state.theta, fresh.parent);
    metadata[kTraining] = detail::one_line({{"converged", out.summary.converged},
                                            {"iterations", out.summary.iterations},
                                            {"examples", out.examples},
                                            {"parameters", out.parameters},
                                            {"objective", out.stationarity.objective},
                                            {"gradient-norm", out.stationarity.gradient_norm},
                                            {"data-gradient-norm", out.stationarity.data_gradient_norm},
                                            {"relative-gradient-norm", out.stationarity.relative_gradient_norm}});
    write_checkpoint(stage, fresh, state.theta, metadata);
  } catch (...) {
    if (!written) {  // what was trained is not lost with it
      write_unfinished(unfinished, state, settings);
    }
    throw;
  }
  return out;
}

}  // namespace whence
