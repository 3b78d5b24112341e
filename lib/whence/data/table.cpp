#include "whence/data/detail/table.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "whence/core/files.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {

/// Reads the whole of a cell, but for spaces around it.
template <class Number>
bool read_number(std::string_view cell, Number& value) {
  const auto first = cell.find_first_not_of(' ');
  cell = first == cell.npos ? std::string_view{} : cell.substr(first, cell.find_last_not_of(' ') - first + 1);
  const auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return code == std::errc{} && end == cell.data() + cell.size();
}

/// A file's rows, with the names and the number of its columns.
class TableReader {
 public:
  TableReader(const fs::path& path, bool header, TakeRow take_row)
      : path_(path), file_(open_bytes(path)), take_row_(take_row) {
    const auto bytes = file_->bytes();
    cursor_.rest = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    if (cursor_.rest.starts_with(kByteOrderMark)) {
      cursor_.rest.remove_prefix(kByteOrderMark.size());
    }
    const auto start = cursor_;
    if (!next()) {
      throw DataError(fmt::format("{}: no rows", path.string()));
    }
    names_ = cells_;
    if (!header) {
      cursor_ = start;
      for (std::size_t i = 0; i < names_.size(); ++i) {
        names_[i] = std::to_string(i);
      }
    }
    auto sorted = names_;
    std::sort(sorted.begin(), sorted.end());
    if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
      throw DataError(fmt::format("{}: line {} names column \"{}\" twice", path.string(), line_, *twice));
    }
  }

  /// Goes on to the next row that is not blank; false at the end.
  bool next() {
    do {
      if (cursor_.rest.empty()) {
        return false;
      }
      line_ = cursor_.line;
      take_row_(path_, cursor_, cells_);
    } while (cells_.size() == 1 && cells_[0].empty());
    if (!names_.empty() && cells_.size() != names_.size()) {
      throw DataError(
          fmt::format("{}: line {} has {} columns, expected {}", path_.string(), line_, cells_.size(), names_.size()));
    }
    return true;
  }

  const std::vector<std::string>& names() const { return names_; }
  const std::string& cell(std::size_t column) const { return cells_[column]; }
  const std::vector<std::string>& cells() const { return cells_; }
  std::int64_t line() const { return line_; }

  double number(std::size_t column) const {
    double value = 0;
    if (!read_number(cells_[column], value) || !std::isfinite(value)) {
      fail(column, fmt::format("\"{}\" is not a finite number", cells_[column]));
    }
    return value;
  }

  [[noreturn]] void fail(std::size_t column, const std::string& what) const {
    throw DataError(fmt::format("{}: line {}, column \"{}\": {}", path_.string(), line_, names_[column], what));
  }

 private:
  fs::path path_;
  std::shared_ptr<const FileBytes> file_;
  TakeRow take_row_;
  TextCursor cursor_;
  std::vector<std::string> names_, cells_;
  std::int64_t line_ = 0;  // where the row in cells_ starts
};

std::size_t find_column(const std::vector<std::string>& names, std::string_view format, std::string_view key,
                        const std::string& name, const fs::path& path) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    throw InvalidArgument(
        fmt::format("{}: key {}: {} in {}", format, key, unknown_name("column", name, names), path.string()));
  }
  return static_cast<std::size_t>(found - names.begin());
}

std::vector<std::size_t> input_columns(const TableKeys& keys, const std::vector<std::string>& names, std::size_t label,
                                       std::string_view format, const fs::path& path) {
  std::vector<std::size_t> columns;
  for (const auto& name : keys.input.empty() ? names : keys.input) {
    const auto column = find_column(names, format, "input", name, path);
    if (column != label) {
      columns.push_back(column);
    } else if (!keys.input.empty()) {
      throw InvalidArgument(fmt::format("{}: key input: column \"{}\" is also the label", format, name));
    }
  }
  if (columns.empty()) {
    throw DataError(fmt::format("{}: no column besides the label \"{}\"", path.string(), names[label]));
  }
  return columns;
}

/// Every column as text, and the labels where the loss wants classes.
SourceExamples read_texts(TableReader& reader, const TableKeys& keys, std::string_view format, const fs::path& path,
                          TargetKind wanted) {
  SourceExamples source;
  source.files = {path};
  source.inputs_from = source.targets_from = path.string();
  source.records.columns = reader.names();
  std::vector<std::string> labels;
  std::size_t label = 0;
  if (wanted == TargetKind::kClasses) {
    label = find_column(reader.names(), format, "label", keys.label, path);
  }
  while (reader.next()) {
    source.records.rows.push_back(reader.cells());
    source.records.lines.push_back(reader.line());
    if (wanted == TargetKind::kClasses) {
      if (reader.cell(label).empty()) {
        reader.fail(label, "no label");
      }
      labels.push_back(reader.cell(label));
    }
  }
  if (wanted == TargetKind::kClasses) {
    set_labels(source, labels);
  }
  return source;
}

}  // namespace

void set_labels(SourceExamples& source, const std::vector<std::string>& cells) {
  std::vector<std::int64_t> labels(cells.size());
  bool integers = true;
  for (std::size_t i = 0; integers && i < cells.size(); ++i) {
    integers = read_number(cells[i], labels[i]);
  }
  if (!integers) {
    auto& names = source.label_names;
    names = cells;
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    std::transform(cells.begin(), cells.end(), labels.begin(), [&](const std::string& cell) {
      return std::lower_bound(names.begin(), names.end(), cell) - names.begin();
    });
  }
  source.labels = at::tensor(labels, at::kLong);
}

SourceExamples read_table(const nlohmann::json& table, std::string_view format, const fs::path& folder,
                          TargetKind wanted, TakeRow take_row) {
  const auto keys = read_keys<TableKeys>(table, format);
  const auto path = folder / keys.file;
  TableReader reader(path, keys.header, take_row);
  if (asks_for_texts(table)) {
    return read_texts(reader, keys, format, path, wanted);
  }
  const auto label = find_column(reader.names(), format, "label", keys.label, path);
  const auto columns = input_columns(keys, reader.names(), label, format, path);

  std::vector<double> inputs, values;
  std::vector<std::string> labels;
  bool as_values = false;
  while (reader.next()) {
    for (const auto column : columns) {
      inputs.push_back(reader.number(column));
    }
    if (reader.cell(label).empty()) {
      reader.fail(label, "no label");
    }
    if (values.empty() && labels.empty()) {
      double first = 0;
      as_values = wanted == TargetKind::kValues && read_number(reader.cell(label), first);
    }
    if (as_values) {
      values.push_back(reader.number(label));
    } else {
      labels.push_back(reader.cell(label));
    }
  }

  SourceExamples source;
  source.files = {path};
  source.inputs_from = source.targets_from = path.string();
  const auto width = static_cast<std::int64_t>(columns.size());
  source.inputs = at::tensor(inputs, at::kDouble).view({static_cast<std::int64_t>(inputs.size()) / width, width});
  if (as_values) {
    source.values = at::tensor(values, at::kDouble).unsqueeze(1);
  } else {
    set_labels(source, labels);
  }
  return source;
}

}  // namespace whence::detail
