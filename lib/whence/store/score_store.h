#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/store/score_sink.h"

namespace whence {

/// One matrix of a result: the scores of one stage's examples.
struct ScoreLayout {
  std::string name;        ///< "scores", or "scores.STAGE" where there are several.
  at::Tensor example_ids;  ///< [N] int64, one a column.
};

/// The score matrices of one result directory, written block by block and resumable.
///
/// Until finish(), everything lies under DIR/.partial: each matrix as a sparse file, a journal of the blocks that are
/// on disk, and vectors that were costly to make. A run that is killed loses at most the blocks of its last second; the
/// next one with the same key goes on. Memory: a few bytes a query. Disk: twice the matrices while finish() runs.
///
/// Every member throws DataError with the system's reason when a file cannot be written (a full disk); nothing is then
/// left under its final name.
class ScoreStore {
 public:
  /// Opens or begins the work in `folder`, which is made where it is missing. `run_key` is a line that fixes every
  /// number of the result: options, seed, digests of the inputs. `query_ids` is [Q] int64, one a row of every matrix;
  /// `dtype` float32 or float64. Throws InvalidArgument when the folder holds an unfinished run with another key, or
  /// another process is writing there.
  ScoreStore(const std::filesystem::path& folder, const std::string& run_key, std::vector<ScoreLayout> matrices,
             at::Tensor query_ids, at::ScalarType dtype);
  ~ScoreStore();
  ScoreStore(const ScoreStore&) = delete;
  ScoreStore& operator=(const ScoreStore&) = delete;

  /// Where to write the matrix `name`; lives as long as the store. Blocks may come in any order and size, and may
  /// overlap.
  ScoreSink& sink(const std::string& name);

  /// Keeps vectors so that a resumed run need not make them again, and gives them back: nothing when `block` was never
  /// saved.
  void save_vectors(const std::string& block, const ParameterSet& vectors);
  std::optional<ParameterSet> load_vectors(const std::string& block) const;

  /// Writes DIR/scores.safetensors, keeping what is under DIR/.partial for load_vectors(). Throws as finish().
  void write_scores();
  /// Writes DIR/scores.safetensors, unless write_scores() did, and removes DIR/.partial. Throws InvalidArgument, naming
  /// the first one, when a cell was never written. The store takes nothing after this.
  void finish();

  /// Whether `folder` holds a finished scores.safetensors. Opening a store there begins anew, and finish() replaces the
  /// file.
  static bool complete(const std::filesystem::path& folder);

 private:
  class Work;
  std::unique_ptr<Work> work_;
};

struct StageScores {
  std::string name;        ///< "scores" or "scores.STAGE".
  at::Tensor scores;       ///< [Q, N] float32 or float64, mapped from the file.
  at::Tensor example_ids;  ///< [N] int64.
};
/// A finished result.
struct Scores {
  at::Tensor query_ids;             ///< [Q] int64
  std::vector<StageScores> stages;  ///< In the order of the file.
  std::string run_key;              ///< What ScoreStore was given; empty for a file that another program wrote.
};
/// Reads scores.safetensors: its path, or that of the folder that holds it. Throws DataError when the file is damaged
/// or truncated, a tensor is missing or the shapes do not agree.
Scores read_scores(const std::filesystem::path& path);

}  // namespace whence
