#pragma once
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace whence {

/// The beginning of a csv or tsv file as a data table reads it: for who has yet to say what its columns are.
struct TablePreview {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};
/// The first `most` rows. `format` is "csv" or "tsv". Throws DataError as reading does.
TablePreview preview_table(const std::filesystem::path& path, std::string_view format, std::size_t most);

/// What a cell of a table is read as.
struct CellValue {
  bool missing = false;
  std::optional<double> number = {};
};
CellValue cell_value(std::string_view cell);

}  // namespace whence
