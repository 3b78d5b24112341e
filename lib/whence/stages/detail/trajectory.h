#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "whence/stages/stage.h"

namespace whence::detail {

std::filesystem::path snapshot_path(const std::filesystem::path& checkpoint, std::int64_t number);

/// Where a training stands; `before` is the snapshot before, or none of it.
Snapshot snapshot_of(const Stage& stage, const TrainingState& state, const Snapshot& before);

/// Writes a training's snapshots as it comes by them.
class SnapshotWriter {
 public:
  /// Snapshot i goes into files[i] after iterations[i] steps, with the name of the `training`. Removes what another
  /// training left there. Throws DataError where `state` is past a snapshot that is missing or of another training.
  SnapshotWriter(const Stage& stage, std::vector<std::filesystem::path> files, std::vector<std::int64_t> iterations,
                 std::string training, const TrainingState& state);
  void after_iteration(const TrainingState& state);

 private:
  const Stage& stage_;
  std::vector<std::filesystem::path> files_;
  std::vector<std::int64_t> iterations_;
  std::string training_;
  std::size_t next_ = 0;
  Snapshot last_;  // its iteration and total time alone
};

/// What the files hold, for a stage whose theta was read from `checkpoint`. `remedy` ends the message when one is
/// missing, or of another training than the last, which ended at the checkpoint.
std::vector<Snapshot> read_trajectory(const std::vector<std::filesystem::path>& files, const Stage& stage,
                                      const std::filesystem::path& checkpoint, const std::string& remedy);

}  // namespace whence::detail
