#include <fmt/format.h>

#include <algorithm>

#include "whence/data/detail/table.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// Appends the quoted cell that starts at text[i]. Returns the position after its closing quote, npos where it has
/// none.
std::size_t take_quoted(std::string_view text, std::size_t i, std::string& cell) {
  for (++i; i < text.size(); ++i) {
    if (text[i] == '"') {
      if (text.substr(i + 1, 1) != "\"") {
        return i + 1;
      }
      ++i;
    }
    cell += text[i];
  }
  return text.npos;
}

/// RFC 4180: a cell that starts with a quote ends with one, and holds commas, line ends and, doubled, quotes. A line
/// may also end in a bare line feed.
void take_csv_row(char separator, const fs::path& path, detail::TextCursor& cursor, std::vector<std::string>& cells) {
  const auto text = cursor.rest;
  std::size_t i = 0;
  const auto at_end = [&] { return i == text.size() || text[i] == '\n' || text.substr(i, 2) == "\r\n"; };
  const auto fail = [&](const char* what) {
    throw DataError(fmt::format("{}: line {}, column {}: {}", path.string(), cursor.line, cells.size(), what));
  };
  cells.clear();
  while (true) {
    auto& cell = cells.emplace_back();
    if (i < text.size() && text[i] == '"') {
      i = take_quoted(text, i, cell);
      if (i == text.npos) {
        fail("a quoted cell has no end");
      }
      cursor.line += std::count(cell.begin(), cell.end(), '\n');
      if (!at_end() && text[i] != separator) {
        fail("text after a quoted cell, expected a separator or the line's end");
      }
    }
    for (; !at_end() && text[i] != separator; ++i) {
      cell += text[i];
    }
    if (at_end()) {
      break;
    }
    ++i;
  }
  if (i < text.size()) {
    i += text[i] == '\r' ? 2 : 1;
    ++cursor.line;
  }
  cursor.rest = text.substr(i);
}

/// What separates the cells of a file that is called csv: the comma; but where line 1 has none, what spreadsheets write
/// in its place.
char separator_of(std::string_view text) {
  const auto line = text.substr(0, text.find('\n', text.find_first_not_of("\r\n")));
  bool quoted = false;
  std::string outside;
  for (const char c : line) {
    quoted = quoted != (c == '"');
    outside += quoted ? '"' : c;
  }
  for (const char separator : {',', '\t', ';'}) {
    if (outside.find(separator) != outside.npos) {
      return separator;
    }
  }
  return ',';
}

class CsvFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<detail::TableKeys>(); }
  bool has_columns() const override { return true; }
  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind wanted) const override {
    return detail::read_table(table, "csv", folder, wanted, detail::csv_rows);
  }
};

}  // namespace

detail::TakeRow detail::csv_rows(std::string_view text) {
  return [separator = separator_of(text)](const auto& path, auto& cursor, auto& cells) {
    take_csv_row(separator, path, cursor, cells);
  };
}

WHENCE_FORMAT(csv, CsvFormat)

}  // namespace whence
