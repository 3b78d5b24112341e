#include "whence/data/detail/cells.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "whence/core/error.h"

namespace whence::detail {
namespace {

constexpr std::string_view kMinus = "\xE2\x88\x92";  // U+2212, which word processors write
constexpr std::array<std::string_view, 4> kCurrencies = {"$", "\xE2\x82\xAC", "\xC2\xA3", "\xC2\xA5"};

/// The whole of `text` as a number, which may be infinite or NaN; nothing where it is none.
std::optional<double> read_whole(std::string_view text) {
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-' && text[1] != '+') {
    text.remove_prefix(1);
  }
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || (code != std::errc{} && code != std::errc::result_out_of_range)) {
    return std::nullopt;
  }
  // from_chars leaves the value as it was where it is too large or too small
  return code == std::errc{} ? value : std::strtod(std::string(text).c_str(), nullptr);
}

/// `cell` without what people put into numbers to read them; the same where there is nothing of the kind.
std::string without_marks(std::string_view cell) {
  std::string out(cell);
  for (const auto mark : kCurrencies) {
    if (out.starts_with(mark)) {
      out.erase(0, mark.size());
    } else if (out.ends_with(mark)) {
      out.erase(out.size() - mark.size());
    }
  }
  if (out.starts_with(kMinus)) {
    out.replace(0, kMinus.size(), "-");
  }
  if (out.ends_with('%')) {
    out.pop_back();
  }
  out.erase(
      std::remove_if(out.begin(), out.end(), [](char c) { return c == ',' || c == ' ' || c == '_' || c == '\''; }),
      out.end());
  return out;
}

/// The whole number that a decimal text ("+3", "3.0", "3e2") stands for, digit by digit, since float64 holds those up
/// to 2^53 alone; nothing where it stands for another number. `text` is one that number_in() takes.
std::optional<std::string> whole_number(std::string_view text) {
  const bool negative = text.starts_with('-');
  text.remove_prefix(negative || text.starts_with('+') ? 1 : 0);
  const auto mantissa = text.substr(0, text.find_first_of("eE"));
  std::int64_t exponent = 0;
  if (mantissa.size() < text.size()) {
    auto digits = text.substr(mantissa.size() + 1);
    digits.remove_prefix(digits.starts_with('+') ? 1 : 0);
    if (std::from_chars(digits.data(), digits.data() + digits.size(), exponent).ec != std::errc{}) {
      return std::nullopt;
    }
  }
  const auto point = std::min(mantissa.find('.'), mantissa.size());
  auto digits = std::string(mantissa);
  digits.erase(point, 1);
  const auto first = std::min(digits.find_first_not_of('0'), digits.size());
  const auto end = digits.find_last_not_of('0') + 1;  // 0 where there is no other digit
  if (end == 0) {
    return "0";
  }
  // the digits before the point, and those that a positive exponent appends; number_in() bounds it
  const auto whole = static_cast<std::int64_t>(point) + exponent;
  if (whole < static_cast<std::int64_t>(end)) {
    return std::nullopt;
  }
  digits.resize(static_cast<std::size_t>(whole), '0');
  return (negative ? "-" : "") + digits.substr(first);
}

}  // namespace

std::string_view trimmed(std::string_view cell) {
  const auto first = cell.find_first_not_of(" \t");
  return first == cell.npos ? std::string_view{} : cell.substr(first, cell.find_last_not_of(" \t") - first + 1);
}

std::optional<double> number_in(std::string_view cell) {
  const auto value = read_whole(trimmed(cell));
  return value && std::isfinite(*value) ? value : std::nullopt;
}

bool is_missing(std::string_view cell) {
  static constexpr std::array<std::string_view, 11> kMarks = {"",     "?",   "NA",  "N/A",  "n/a", "#N/A",
                                                              "<NA>", "NaN", "nan", "null", "NULL"};
  return std::find(kMarks.begin(), kMarks.end(), trimmed(cell)) != kMarks.end();
}

bool is_almost_number(std::string_view cell) {
  const auto text = trimmed(cell);
  const auto digit = std::find_if(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (const auto whole = read_whole(text)) {
    return std::isinf(*whole);
  }
  if (digit == text.end()) {
    return false;
  }
  const auto bare = without_marks(text);
  return bare != text && read_whole(bare).has_value();
}

std::string why_no_number(std::string_view cell) {
  const auto text = trimmed(cell);
  const auto quoted = fmt::format("\"{}\"", text);
  if (const auto value = read_whole(text)) {
    return std::isnan(*value) || text.find_first_of("0123456789") == text.npos
               ? quoted + " is not a finite number"
               : quoted + " is not a finite number: float64 reaches 1.8e308";
  }
  if (text.find(kMinus) != text.npos && is_almost_number(text)) {
    return quoted + " is not a finite number: its minus is a typographic one (U+2212), expected -";
  }
  if (const auto comma = text.find(','); is_almost_number(text) && comma != text.npos && comma == text.rfind(',')) {
    auto point = std::string(text);
    point[comma] = '.';
    return fmt::format("{} is not a finite number: its comma may separate thousands or decimals: write {} or {}",
                       quoted, without_marks(text), point);
  }
  if (is_almost_number(text)) {
    return fmt::format("{} is not a finite number: write {} alone", quoted, without_marks(text));
  }
  return quoted + " is not a finite number";
}

std::string canonical_label(std::string_view cell) {
  const auto text = trimmed(cell);
  return number_in(text) ? whole_number(text).value_or(std::string(text)) : std::string(text);
}

CellTable::CellTable(std::filesystem::path path, std::vector<std::string> columns)
    : path_(std::move(path)), columns_(std::move(columns)) {
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    numbers_.emplace(columns_[i], i);
  }
}

void CellTable::add(const std::vector<std::string>& cells, std::int64_t line) {
  std::size_t size = 0;
  for (const auto& cell : cells) {
    size += cell.size();
  }
  if (size > std::numeric_limits<std::uint32_t>::max()) {
    throw DataError(fmt::format("{}: line {} holds {} bytes, expected less than 4 GiB", path_.string(), line, size));
  }
  begins_.push_back(text_.size());
  for (const auto& cell : cells) {
    text_ += cell;
    ends_.push_back(static_cast<std::uint32_t>(text_.size() - begins_.back()));
  }
  lines_.push_back(line);
}

std::optional<std::size_t> CellTable::column(const std::string& name) const {
  const auto found = numbers_.find(name);
  return found == numbers_.end() ? std::nullopt : std::optional(found->second);
}

std::string_view CellTable::cell(std::int64_t row, std::size_t column) const {
  const auto at = static_cast<std::size_t>(row) * columns_.size() + column;
  const auto begin = column == 0 ? 0 : ends_[at - 1];
  return std::string_view(text_).substr(begins_[static_cast<std::size_t>(row)] + begin, ends_[at] - begin);
}

std::string CellTable::place(std::int64_t row, std::size_t column) const {
  return fmt::format("{}: line {}, column \"{}\"", path_.string(), line(row), columns_[column]);
}

}  // namespace whence::detail
