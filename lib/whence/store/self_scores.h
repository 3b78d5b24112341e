#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

namespace whence {

/// Scores of one stage's examples for their own losses.
struct SelfScores {
  std::string name;        ///< "self", or "self.STAGE" where every stage was asked for.
  at::Tensor scores;       ///< [N] float32 or float64.
  at::Tensor example_ids;  ///< [N] int64
};

/// scores.safetensors of --self: for each entry its scores and "example-ids" or "example-ids.STAGE". Appears whole or
/// not at all. `run_key` is that of the result.
void write_self_scores(const std::filesystem::path& file, const std::vector<SelfScores>& stages,
                       const std::string& run_key);

struct SelfResult {
  std::vector<SelfScores> stages;  ///< By name.
};
/// Reads scores.safetensors: its path, or that of the folder that holds it. Throws DataError where it holds no scores
/// of --self, or the shapes do not agree.
SelfResult read_self_scores(const std::filesystem::path& path);

}  // namespace whence
