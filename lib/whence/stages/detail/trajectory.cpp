#include "whence/stages/detail/trajectory.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/data/safetensors.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/detail/training_record.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPreconditioner = "preconditioner.";

/// The time since training began, at a snapshot.
double total_time(const fs::path& path) {
  return metadata_number<double>(read_safetensors_metadata(path), "total-time", path);
}

/// The name of the training that a snapshot is of; empty where it does not say.
std::string training_of(const fs::path& path) {
  const auto metadata = read_safetensors_metadata(path);
  const auto found = metadata.find(kTraining);
  return found == metadata.end() ? std::string() : found->second;
}

/// The tensors named PREFIX…, without the prefix.
ParameterSet strip(const ParameterSet& set, std::string_view prefix) {
  ParameterSet out;
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set.names()[i].starts_with(prefix)) {
      out.add(set.names()[i].substr(prefix.size()), set.values()[i]);
    }
  }
  return out;
}

}  // namespace

fs::path snapshot_path(const fs::path& checkpoint, std::int64_t number) {
  auto path = checkpoint;
  const auto name = checkpoint.extension() == ".safetensors" ? checkpoint.stem() : checkpoint.filename();
  return path.replace_filename(fmt::format("{}.snapshot-{}.safetensors", name.string(), number));
}

Snapshot snapshot_of(const Stage& stage, const TrainingState& state, const Snapshot& before) {
  return {.theta = detach(state.theta),
          .preconditioner = stage.optimizer->preconditioner(state),
          .time = state.time - before.total_time,
          .steps = state.iteration - before.iteration,
          .iteration = state.iteration,
          .total_time = state.time};
}

SnapshotWriter::SnapshotWriter(const Stage& stage, std::vector<fs::path> files, std::vector<std::int64_t> iterations,
                               std::string training, const TrainingState& state)
    : stage_(stage), files_(std::move(files)), iterations_(std::move(iterations)), training_(std::move(training)) {
  for (; next_ < files_.size() && iterations_[next_] <= state.iteration; ++next_) {
    if (!fs::exists(files_[next_])) {
      throw DataError(fmt::format("{} is missing, and the unfinished training is past it: remove the .unfinished file",
                                  files_[next_].string()));
    }
    if (training_of(files_[next_]) != training_) {
      throw DataError(fmt::format("{} is of another training than the unfinished one: remove the .unfinished file",
                                  files_[next_].string()));
    }
    last_.iteration = iterations_[next_];
    last_.total_time = total_time(files_[next_]);
  }
  for (auto i = next_; i < files_.size(); ++i) {
    std::error_code ignored;
    fs::remove(files_[i], ignored);
  }
}

void SnapshotWriter::after_iteration(const TrainingState& state) {
  if (next_ >= files_.size() || state.iteration != iterations_[next_]) {
    return;
  }
  const auto snapshot = snapshot_of(stage_, state, last_);
  auto tensors = stage_.objective.trained().with(snapshot.theta);
  ParameterSet scales;
  for (std::size_t i = 0; i < snapshot.preconditioner.size(); ++i) {
    scales.add(fmt::format("{}{}", kPreconditioner, tensors.names()[i]), snapshot.preconditioner[i]);
  }
  write_sealed(files_[next_], tensors.join(scales).to(state.theta.front().scalar_type(), at::kCPU),
               {{"stage", stage_.name},
                {kTraining, training_},
                {"iteration", std::to_string(snapshot.iteration)},
                {"steps", std::to_string(snapshot.steps)},
                {"time", fmt::format("{}", snapshot.time)},
                {"total-time", fmt::format("{}", snapshot.total_time)}});
  last_.iteration = snapshot.iteration;
  last_.total_time = snapshot.total_time;
  ++next_;
}

std::vector<Snapshot> read_trajectory(const std::vector<fs::path>& files, const Stage& stage,
                                      const fs::path& checkpoint, const std::string& remedy) {
  std::vector<Snapshot> out;
  const auto& trained = stage.objective.trained();
  for (const auto& file : files) {
    if (!fs::exists(file)) {
      throw DataError(fmt::format("stage {}: snapshots = {}, but there is no {}: {}", stage.name, files.size(),
                                  file.string(), remedy));
    }
    const auto where = fmt::format("{} (stage {})", file.string(), stage.name);
    const auto [tensors, metadata] = read_sealed(file, remedy);
    Snapshot snapshot;
    snapshot.theta = fit_checkpoint(trained, tensors.without(kPreconditioner), where).values();
    if (const auto scales = strip(tensors, kPreconditioner); !scales.empty()) {
      snapshot.preconditioner = fit_checkpoint(trained, scales, where).values();
    }
    snapshot.time = metadata_number<double>(metadata, "time", file);
    snapshot.total_time = metadata_number<double>(metadata, "total-time", file);
    snapshot.steps = metadata_number<std::int64_t>(metadata, "steps", file);
    snapshot.iteration = metadata_number<std::int64_t>(metadata, "iteration", file);
    out.push_back(std::move(snapshot));
  }
  for (const auto& file : files) {
    if (training_of(file) != training_of(files.back())) {
      throw DataError(fmt::format("stage {}: {} is of another training than {}: {}", stage.name, file.string(),
                                  files.back().string(), remedy));
    }
  }
  for (std::size_t i = 0; i < trained.size() && !out.empty(); ++i) {
    if (!at::equal(out.back().theta[i], stage.theta[i])) {
      throw DataError(fmt::format("stage {}: {} is not where the training of {} ended: {}", stage.name,
                                  files.back().string(), checkpoint.string(), remedy));
    }
  }
  return out;
}

}  // namespace whence::detail
