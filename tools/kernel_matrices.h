#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "whence/kernels/kernel_blocks.h"

namespace whence::cli {

/// One kernel matrix of a run of `whence kernel`.
struct KernelJob {
  std::string name;
  std::shared_ptr<const TangentKernel> kernel;
  std::string spec;  ///< The kernel's, with all options.
  KernelPoint point;
  std::string outputs;  ///< Which they are.
  bool kept;            ///< Whether the result holds the matrix.
  Dataset rows;
  std::optional<Dataset> columns;  ///< Nothing: the rows.
  KernelPlan plan = {};
  std::string key = {};  ///< matrix_key(), of a matrix that is kept.

  /// [rows, C, columns, C] of what lies in memory in that order.
  at::Tensor shaped(const at::Tensor& values) const;
};

/// A digest of all that a matrix rests on. Fine-tunes of one start have one kernel there, however they went on. Cost:
/// SHA-256 of the parameters.
std::string matrix_key(const KernelJob& job);

using KernelMatrices = std::map<std::string, at::Tensor>;  // by the names of their jobs

/// Makes a matrix, [rows, C, columns, C] float64, keeping its blocks in `work` so that a run that is stopped goes on
/// with those that are missing. `run` is the key of that run.
at::Tensor make_matrix(const KernelJob& job, const std::filesystem::path& work, const std::string& run,
                       const Progress& progress);

/// Writes those that a result keeps.
void write_matrices(const std::filesystem::path& path, const std::vector<KernelJob>& jobs,
                    const KernelMatrices& matrices, const std::string& run);
/// Those that write_matrices() left in a finished result and that are the jobs' own; none where there is no result, or
/// its file is not what was written.
KernelMatrices kept_matrices(const std::filesystem::path& folder, const std::vector<KernelJob>& jobs);

/// The file of a result that they lie in.
inline const std::string kMatricesFile = "kernel.safetensors";

}  // namespace whence::cli
