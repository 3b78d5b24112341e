#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "whence/core/json.h"

namespace whence::detail {

/// A tensor of an exported program, as its file stores it.
struct StoredTensor {
  at::Tensor value;  ///< On the CPU; names of one place, or of one storage, may share it.
  bool is_parameter = false;
  bool trained = false;  ///< requires_grad where it was exported.
  std::string place;     ///< Equal for two names of one tensor: tied weights.
};

/// What torch.export.save wrote (.pt2): a graph of operators as JSON, and raw tensors. No pickle in it is opened. PT2
/// Archive Spec, docs.pytorch.org/docs/stable/export/pt2_archive.html.
struct ExportArchive {
  std::string where;                              ///< The file, as messages name it.
  JsonView program;                               ///< models/NAME.json
  std::map<std::string, StoredTensor> weights;    ///< Parameters and persistent buffers, by state-dict name.
  std::map<std::string, StoredTensor> constants;  ///< Other buffers, and tensors that the program holds.
  std::optional<JsonView> told;  ///< What python/whence_export.py stored beside it; nothing for a file without.
  std::vector<std::string> notes;

  /// Throws DataError for anything else, or a later version, by name and with what to do.
  static ExportArchive read(const std::filesystem::path& path);
};

/// A number of the file's for a dtype, which is not c10's. Throws DataError for one that is not known.
at::ScalarType dtype_of_export(std::int64_t number, const std::string& where);

}  // namespace whence::detail
