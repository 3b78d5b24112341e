#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace whence::detail {

/// Without the spaces and tabs around it.
std::string_view trimmed(std::string_view cell);

/// The number that a cell holds: "3", "+0.5", " 1e-3 ". Nothing where it holds anything else or more, infinity, NaN or
/// a number that float64 does not reach.
std::optional<double> number_in(std::string_view cell);

/// Why number_in() finds none: `"1,234" has a comma: …`.
std::string why_no_number(std::string_view cell);

/// Whether people and programs write such a cell for a value that they do not have: nothing, ?, NA, NaN, null.
bool is_missing(std::string_view cell);

/// Whether a cell that is no number is one to its author: 1,234 or 12% or $5.
bool is_almost_number(std::string_view cell);

/// A class as it is called: whole numbers without sign or decimal point, "+1" and "1.0" as "1"; all else as it is.
std::string canonical_label(std::string_view cell);

/// The cells of a table, row by row, in a quarter of the memory that a string for each would take.
class CellTable {
 public:
  CellTable(std::filesystem::path path, std::vector<std::string> columns);

  /// `cells` as many as there are columns.
  void add(const std::vector<std::string>& cells, std::int64_t line);

  std::int64_t rows() const { return static_cast<std::int64_t>(lines_.size()); }
  const std::vector<std::string>& columns() const { return columns_; }
  const std::filesystem::path& path() const { return path_; }
  /// The column of that name; nothing where there is none. In constant time.
  std::optional<std::size_t> column(const std::string& name) const;
  std::string_view cell(std::int64_t row, std::size_t column) const;
  /// The line (from 1) of its file where a row starts.
  std::int64_t line(std::int64_t row) const { return lines_[static_cast<std::size_t>(row)]; }
  /// `FILE: line 3, column "age"`.
  std::string place(std::int64_t row, std::size_t column) const;

 private:
  std::filesystem::path path_;
  std::vector<std::string> columns_;
  std::unordered_map<std::string, std::size_t> numbers_;  // of columns, by name; the first of several without one
  std::string text_;
  std::vector<std::size_t> begins_;  // of each row in text_
  std::vector<std::uint32_t> ends_;  // of each cell, from its row's begin
  std::vector<std::int64_t> lines_;
};

}  // namespace whence::detail
