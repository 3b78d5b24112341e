#include "whence/data/detail/table.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "whence/core/files.h"
#include "whence/core/progress.h"
#include "whence/core/text.h"
#include "whence/data/table_preview.h"

namespace whence {
namespace fs = std::filesystem;
namespace detail {
namespace {

/// A file's rows, with the names and the number of its columns.
class TableReader {
 public:
  TableReader(const fs::path& path, bool header, const std::function<TakeRow(std::string_view)>& rows_of)
      : path_(path), file_(open_bytes(path)) {
    const auto bytes = file_->bytes();
    cursor_.rest = utf8_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
    if (cursor_.rest.find('\n') == std::string_view::npos && cursor_.rest.find('\r') < cursor_.rest.size() - 1) {
      throw DataError(fmt::format("{}: its lines end in carriage returns alone: tr '\\r' '\\n' < {} > NEW",
                                  path.string(), path.filename().string()));
    }
    take_row_ = rows_of(cursor_.rest);
    const auto start = cursor_;
    if (!next()) {
      throw DataError(fmt::format("{}: no rows", path.string()));
    }
    names_ = cells_;
    for (auto& name : names_) {
      name = std::string(trimmed(name));
    }
    if (!header) {
      cursor_ = start;
      for (std::size_t i = 0; i < names_.size(); ++i) {
        names_[i] = std::to_string(i);
      }
    }
    auto sorted = names_;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end(),
                                          [](const auto& a, const auto& b) { return a == b && !a.empty(); });
    if (twice != sorted.end()) {
      const bool numbers = std::all_of(names_.begin(), names_.end(), [](const auto& name) {
        char* end = nullptr;
        std::strtod(name.c_str(), &end);
        return !name.empty() && *end == '\0';
      });
      throw DataError(
          fmt::format("{}: line {} names column \"{}\" twice{}", path.string(), line_, *twice,
                      numbers ? ": its names are numbers, of a row perhaps, which header = false says" : ""));
    }
  }

  /// Goes on to the next row that is not blank; false at the end.
  bool next() {
    do {
      if (cursor_.rest.empty()) {
        return false;
      }
      line_ = cursor_.line;
      constexpr std::int64_t kBetweenChecks = 1 << 14;
      if (++rows_ % kBetweenChecks == 0) {
        check_interruption();
      }
      take_row_(path_, cursor_, cells_);
    } while (cells_.size() == 1 && cells_[0].empty());
    if (!names_.empty() && cells_.size() != names_.size()) {
      throw DataError(
          fmt::format("{}: line {} has {} columns, expected {}", path_.string(), line_, cells_.size(), names_.size()));
    }
    return true;
  }

  const std::vector<std::string>& names() const { return names_; }
  const std::vector<std::string>& cells() const { return cells_; }
  std::int64_t line() const { return line_; }

 private:
  fs::path path_;
  std::shared_ptr<const FileBytes> file_;
  TakeRow take_row_;
  TextCursor cursor_;
  std::vector<std::string> names_, cells_;
  std::int64_t line_ = 0;  // where the row in cells_ starts
  std::int64_t rows_ = 0;  // taken so far
};

bool all_numbers(const std::vector<std::string>& cells) {
  return std::all_of(cells.begin(), cells.end(), [](const auto& cell) { return number_in(cell).has_value(); });
}

/// Names 0, 1, 2, … are what pandas gives columns that had none.
bool counts_up(const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] != std::to_string(i)) {
      return false;
    }
  }
  return true;
}

std::size_t find_label(const std::vector<std::string>& names, std::string_view format, std::string_view key,
                       const std::string& label, const fs::path& path, const std::string& hint) {
  const auto found = std::find(names.begin(), names.end(), label);
  if (found != names.end()) {
    return static_cast<std::size_t>(found - names.begin());
  }
  const bool of_commas = format == "tsv" && names.size() == 1 && names[0].find(',') != std::string::npos;
  throw InvalidArgument(fmt::format("{}: key {}: {} in {}{}", format, key, unknown_name("column", label, names),
                                    path.string(),
                                    of_commas ? ", which has no tab but commas: format = \"csv\"" : hint));
}

}  // namespace

SourceExamples read_table(const nlohmann::json& table, std::string_view format, const fs::path& folder,
                          TargetKind wanted, const std::function<TakeRow(std::string_view)>& rows_of) {
  const auto keys = read_keys<TableKeys>(table, format);
  const auto path = folder / keys.file;
  TableReader reader(path, keys.header, rows_of);
  const auto& names = reader.names();
  const bool texts = asks_for_texts(table);
  if (!texts && !table.contains("header") && names.size() > 1 && all_numbers(names) && !counts_up(names)) {
    throw DataError(fmt::format(
        "{}: line 1 holds only numbers: header = false if they are the first row (columns are then called 0 "
        "to {}), header = true if they are names",
        path.string(), names.size() - 1));
  }
  SourceExamples source;
  source.files = {path};
  source.inputs_from = source.targets_from = path.string();
  const bool values = has_value_columns(table, format, keys.labels);
  const bool labelled = !values && (!texts || !are_tokens(wanted));
  const auto label =
      labelled ? find_label(names, format, "label", keys.label, path, hint_without_label(table)) : std::size_t{0};
  std::vector<std::size_t> columns;
  if (labelled) {
    source.label_column = keys.label;
  } else if (values) {
    source.value_columns = keys.labels;
    for (const auto& name : keys.labels) {
      columns.push_back(find_label(names, format, "labels", name, path, ""));
    }
  }
  std::vector<double> numbers;
  if (texts) {
    source.records.columns = names;
  } else {
    source.table = std::make_shared<CellTable>(path, names);
  }
  while (reader.next()) {
    if (labelled) {
      source.label_cells.emplace_back(trimmed(reader.cells()[label]));
    }
    for (const auto column : columns) {
      numbers.push_back(target_value(trimmed(reader.cells()[column]), path, reader.line(), names[column]));
    }
    if (texts) {
      source.records.rows.push_back(reader.cells());
      source.records.lines.push_back(reader.line());
    } else {
      source.table->add(reader.cells(), reader.line());
    }
  }
  if (values) {
    source.values = at::tensor(numbers, at::kDouble).view({-1, static_cast<std::int64_t>(columns.size())});
  }
  return source;
}

bool has_value_columns(const nlohmann::json& table, std::string_view format, const std::vector<std::string>& labels) {
  if (!labels.empty() && table.contains("label")) {
    throw InvalidArgument(fmt::format("{}: keys label and labels are both given, expected one of them", format));
  }
  auto sorted = labels;
  std::sort(sorted.begin(), sorted.end());
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    throw InvalidArgument(fmt::format("{}: key labels names column \"{}\" twice", format, *twice));
  }
  return !labels.empty();
}

double target_value(std::string_view cell, const fs::path& path, std::int64_t line, const std::string& column) {
  const auto number = number_in(cell);
  if (!number) {
    throw DataError(fmt::format("{}: line {}, column \"{}\": {}", path.string(), line, column,
                                cell.empty() ? "no value" : why_no_number(cell)));
  }
  return *number;
}

}  // namespace detail

TablePreview preview_table(const fs::path& path, std::string_view format, std::size_t most) {
  detail::TableReader reader(path, /*header=*/true, format == "tsv" ? detail::tsv_rows : detail::csv_rows);
  TablePreview out{reader.names(), {}};
  while (out.rows.size() < most && reader.next()) {
    out.rows.push_back(reader.cells());
  }
  return out;
}

CellValue cell_value(std::string_view cell) { return {detail::is_missing(cell), detail::number_in(cell)}; }

}  // namespace whence
