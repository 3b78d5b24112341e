#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

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

/// JSON of the file, or within a text of it, with a bound on what is made of it: a program names each value a few dozen
/// times over. Throws DataError for more values than that, before any is made.
template <class Json>
Json parse_bounded(std::string_view text, const std::string& where);
extern template nlohmann::json parse_bounded(std::string_view, const std::string&);
extern template JsonView::Value parse_bounded(std::string_view, const std::string&);

/// A number of the file's for a dtype, which is not c10's. Throws DataError for one that is not known.
at::ScalarType dtype_of_export(std::int64_t number, const std::string& where);

}  // namespace whence::detail
