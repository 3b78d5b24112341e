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

/// The score matrices of one result, written block by block and resumable.
///
/// Everything lies in a folder of the store's own until write(): each matrix as a sparse file, a journal of the blocks
/// that are on disk with their checksums, and vectors that were costly to make. A run that is killed loses at most the
/// blocks of its last second; the next one with the same folder goes on, and makes again what does not fit its
/// checksum. Memory: a few bytes a query. Disk: twice the matrices while write() runs.
///
/// Every member throws DataError with the system's reason when a file cannot be written (a full disk).
class ScoreStore {
 public:
  /// `folder` is what ResultWriter::begin() gave: empty, or with the work of an earlier run of the same key.
  /// `query_ids` is [Q] int64, one a row of every matrix; `dtype` float32 or float64.
  ScoreStore(const std::filesystem::path& folder, std::vector<ScoreLayout> matrices, at::Tensor query_ids,
             at::ScalarType dtype);
  ~ScoreStore();
  ScoreStore(const ScoreStore&) = delete;
  ScoreStore& operator=(const ScoreStore&) = delete;

  /// Where to write the matrix `name`; lives as long as the store. Blocks may come in any order and size, and may
  /// overlap.
  ScoreSink& sink(const std::string& name);

  /// Keeps vectors so that a resumed run need not make them again, and gives them back, aligned in memory as those that
  /// are made: nothing when `block` was never saved, or is not as it was saved.
  void save_vectors(const std::string& block, const ParameterSet& vectors);
  std::optional<ParameterSet> load_vectors(const std::string& block) const;

  /// Writes all to `file`, with `run_key` in its metadata. Throws InvalidArgument, naming the first one, when a cell
  /// was never written.
  void write(const std::filesystem::path& file, const std::string& run_key);

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
};
/// Reads scores.safetensors: its path, or that of the folder that holds it. Throws DataError when the file is damaged
/// or truncated, a tensor is missing or the shapes do not agree.
Scores read_scores(const std::filesystem::path& path);

}  // namespace whence
