#include "whence/data/table_encoding.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>

#include "whence/core/error.h"
#include "whence/core/quoted.h"
#include "whence/data/detail/table.h"

namespace whence {
namespace {

constexpr const char* kMissingLevel = "?";

/// A level as it is called: numbers that stand for names may come as 3 in one file and 3.0 in another.
std::string level_of(std::string_view cell) {
  const auto text = detail::trimmed(cell);
  return text.find('.') != text.npos ? detail::canonical_label(text) : std::string(text);
}

}  // namespace

std::int64_t TableEncoding::width() const {
  std::int64_t out = 0;
  for (const auto& column : columns) {
    out += column.levels.empty() ? 1 : static_cast<std::int64_t>(column.levels.size());
  }
  return out;
}

std::vector<std::string> TableEncoding::names() const {
  std::vector<std::string> out;
  for (const auto& column : columns) {
    if (column.levels.empty()) {
      out.push_back(column.name);
    }
    for (const auto& level : column.levels) {
      out.push_back(column.name + "=" + level);
    }
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> TableEncoding::cells(const at::Tensor& inputs) const {
  const auto flat = inputs.detach().to(at::kCPU, at::kDouble).contiguous();
  if (flat.dim() != 1 || flat.size(0) != width()) {
    throw InvalidArgument(fmt::format("table: inputs [{}], expected [{}]", fmt::join(flat.sizes(), ", "), width()));
  }
  const auto* value = flat.const_data_ptr<double>();
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& column : columns) {
    if (!column.levels.empty()) {
      const auto* const end = value + column.levels.size();
      const auto* const found = std::find_if(value, end, [](double x) { return x > 0.5; });
      out.emplace_back(column.name, found == end ? "other" : column.levels[static_cast<std::size_t>(found - value)]);
      value = end;
      continue;
    }
    const auto cell = *value++ * column.scale + column.shift;
    const auto largest = std::max(std::abs(cell), std::abs(column.shift));
    const auto step = largest > 0 ? std::pow(10.0, std::floor(std::log10(largest)) - 12) : 1.0;  // of float64's digits
    out.emplace_back(column.name, fmt::format("{:.15g}", std::nearbyint(cell / step) * step));
  }
  return out;
}

namespace detail {
namespace {

void check_word(const std::string& format, std::string_view key, const std::string& value,
                const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) == known.end()) {
    throw InvalidArgument(
        fmt::format("{}: key {} = \"{}\": {}", format, key, value, unknown_name("word", value, known)));
  }
}

std::size_t find_column(const CellTable& cells, const std::string& format, std::string_view key,
                        const std::string& name) {
  if (const auto found = cells.column(name)) {
    return *found;
  }
  throw InvalidArgument(fmt::format("{}: key {}: {} in {}", format, key, unknown_name("column", name, cells.columns()),
                                    cells.path().string()));
}

/// Fits one encoding. Holds what its steps share.
class Fit {
 public:
  Fit(const CellTable& cells, const std::vector<std::int64_t>& rows, const std::vector<std::string>& labels,
      const nlohmann::json& table, std::string format, bool standardize)
      : cells_(cells),
        rows_(rows),
        labels_(labels),
        format_(std::move(format)),
        keys_(read_keys<EncodingKeys>(table, format_)) {
    if (!table.contains("standardize")) {
      keys_.standardize = standardize;
    }
    check_word(format_, "missing", keys_.missing, {"auto", "refuse", "mean", "median", "mode"});
    check_word(format_, "unknown", keys_.unknown, {"refuse", "zeros"});
    for (const auto& name : keys_.categorical) {
      find_column(cells_, format_, "categorical", name);
      categorical_.insert(name);
    }
  }

  TableEncoding encoding(std::vector<std::string>& notes) {
    TableEncoding out{{}, labels_.front(), keys_.missing, keys_.standardize};
    out.labels = labels_.size() > 1 ? labels_ : std::vector<std::string>{};
    std::vector<TableColumn> categories;
    for (const auto column : input_columns()) {
      auto fitted = fit(column);
      (fitted.levels.empty() ? out.columns : categories).push_back(std::move(fitted));
    }
    const auto numbers = out.columns.size();
    std::move(categories.begin(), categories.end(), std::back_inserter(out.columns));
    std::vector<std::string> parts;
    if (numbers > 0) {
      parts.push_back(fmt::format("{} number{}, {}", numbers, numbers == 1 ? "" : "s",
                                  out.standardize ? "standardised (standardize = false leaves them as they are)"
                                                  : "as they are (standardize = true scales them)"));
    }
    if (!categories.empty()) {
      parts.push_back(
          fmt::format("{} categor{}, one input a level", categories.size(), categories.size() == 1 ? "y" : "ies"));
    }
    if (missing_ > 0) {
      parts.push_back(fmt::format("{} missing cells, {}", missing_,
                                  keys_.missing == "auto" ? fmt::format("a level {}", fmt::join(missing_levels_, ", "))
                                                          : "missing = \"" + keys_.missing + "\""));
    }
    if (!left_out_.empty()) {
      parts.push_back(left_out_);
    }
    if (out.standardize || !categories.empty() || !left_out_.empty()) {
      notes.push_back(fmt::format("{}: {} input{}: {}", cells_.path().filename().string(), out.width(),
                                  out.width() == 1 ? "" : "s", fmt::join(parts, "; ")));
    }
    return out;
  }

 private:
  bool is_label(const std::string& name) const {
    return std::find(labels_.begin(), labels_.end(), name) != labels_.end();
  }

  /// The columns that are inputs, in order.
  std::vector<std::size_t> input_columns() {
    std::vector<std::size_t> out;
    for (const auto& name : keys_.input) {
      if (is_label(name)) {
        throw InvalidArgument(fmt::format("{}: key input: column \"{}\" is also the label", format_, name));
      }
      out.push_back(find_column(cells_, format_, "input", name));
    }
    std::set<std::size_t> ignored;
    for (const auto& name : keys_.ignore) {
      ignored.insert(find_column(cells_, format_, "ignore", name));
    }
    if (!keys_.input.empty() && !ignored.empty()) {
      throw InvalidArgument(format_ + ": keys input and ignore are both given, expected one of them");
    }
    for (std::size_t column = 0; keys_.input.empty() && column < cells_.columns().size(); ++column) {
      const auto& name = cells_.columns()[column];
      if (!is_label(name) && !ignored.contains(column) && !(name_is_missing(name) && leave_out(column))) {
        out.push_back(column);
      }
    }
    if (out.empty()) {
      throw DataError(
          fmt::format("{}: no column besides the label \"{}\"", cells_.path().string(), fmt::join(labels_, "\", \"")));
    }
    return out;
  }

  /// Without a name, as pandas and R write an index, or as the former reads it again.
  static bool name_is_missing(const std::string& name) { return name.empty() || name.starts_with("Unnamed: "); }

  /// Whether a column without a name is an index, or holds nothing. Throws where it is neither.
  bool leave_out(std::size_t column) {
    std::vector<double> numbers;
    std::int64_t present = 0;
    for (const auto row : rows_) {
      const auto cell = cells_.cell(row, column);
      present += is_missing(cell) ? 0 : 1;
      if (const auto number = number_in(cell); number && std::nearbyint(*number) == *number) {
        numbers.push_back(*number);
      }
    }
    std::sort(numbers.begin(), numbers.end());
    const bool index = column == 0 && numbers.size() == rows_.size() &&
                       std::adjacent_find(numbers.begin(), numbers.end()) == numbers.end();
    if (!index && present > 0) {
      throw DataError(
          fmt::format("{}: line 1: column {} has no name and is no index of the rows: name it, or list the "
                      "columns that count in input",
                      cells_.path().string(), column + 1));
    }
    if (index) {
      left_out_ = "the column without a name is an index and is left out";
    }
    return true;
  }

  TableColumn fit(std::size_t column) {
    const auto& name = cells_.columns()[column];
    if (categorical_.contains(name)) {
      return fit_category(column);
    }
    std::int64_t numbers = 0, words = 0, almost = 0, first_number = -1, first_word = -1, first_almost = -1;
    for (const auto row : rows_) {
      const auto cell = cells_.cell(row, column);
      if (number_in(cell)) {
        first_number = numbers++ == 0 ? row : first_number;
      } else if (!is_missing(cell)) {
        first_word = words++ == 0 ? row : first_word;
        if (is_almost_number(cell)) {
          first_almost = almost++ == 0 ? row : first_almost;
        }
      }
    }
    if (numbers == 0 && words == 0) {
      throw DataError(fmt::format("{}: column \"{}\" holds nothing: ignore = {} leaves it out", cells_.path().string(),
                                  name, toml_text(std::vector{name})));
    }
    if (words == 0) {
      return fit_number(column);
    }
    if (numbers == 0 && almost == 0) {
      return fit_category(column);
    }
    const auto odd = numbers == 0 ? first_almost : (numbers >= words ? first_word : first_number);
    const auto cell = std::string(trimmed(cells_.cell(odd, column)));
    throw DataError(fmt::format(
        "{}: {}{}; or categorical = {} if its cells are names", cells_.place(odd, column),
        number_in(cell) ? fmt::format("\"{}\" is a number", cell) : why_no_number(cell),
        numbers == 0 ? ""
                     : fmt::format(", but {} of the column's {} cells {} numbers", number_in(cell) ? words : numbers,
                                   numbers + words, number_in(cell) ? "are no" : "are"),
        toml_text(std::vector{name})));
  }

  TableColumn fit_number(std::size_t column) {
    std::vector<double> present;
    std::int64_t missing = 0, first = -1;
    for (const auto row : rows_) {
      if (const auto number = number_in(cells_.cell(row, column))) {
        present.push_back(*number);
      } else {
        first = missing++ == 0 ? row : first;
      }
    }
    const bool fills = keys_.missing != "auto" && keys_.missing != "refuse";
    if (missing > 0 && !fills) {
      throw_missing(first, column,
                    fmt::format("one of {} missing in the column; missing = \"mean\" (or \"median\", "
                                "\"mode\") fills them in, ignore = {} leaves the column out",
                                missing, toml_text(std::vector{cells_.columns()[column]})));
    }
    missing_ += missing;
    TableColumn out{cells_.columns()[column]};
    if (fills) {
      const auto fill =
          keys_.missing == "mean" ? mean(present) : (keys_.missing == "median" ? median(present) : mode(present));
      out.fill = fmt::format("{}", fill);
      present.insert(present.end(), static_cast<std::size_t>(missing), fill);
    }
    if (keys_.standardize) {
      out.shift = mean(present);
      double sum = 0;
      for (const auto x : present) {
        sum += (x - out.shift) * (x - out.shift) / static_cast<double>(present.size());
      }
      out.scale = sum > 0 ? std::sqrt(sum) : 1;
      if (!std::isfinite(out.scale)) {
        throw DataError(fmt::format("{}: column \"{}\" spreads wider than float64 can square: standardize = false",
                                    cells_.path().string(), out.name));
      }
    }
    return out;
  }

  TableColumn fit_category(std::size_t column) {
    std::map<std::string, std::int64_t> counts;
    std::set<std::string> marks;  // of missing cells
    std::int64_t missing = 0, first = -1;
    for (const auto row : rows_) {
      const auto cell = cells_.cell(row, column);
      if (is_missing(cell)) {
        first = missing++ == 0 ? row : first;
        marks.emplace(trimmed(cell));
      } else {
        ++counts[level_of(cell)];
      }
    }
    if (missing > 0 && keys_.missing == "refuse") {
      throw_missing(first, column,
                    fmt::format("one of {} missing in the column; missing = \"auto\" makes them a level, "
                                "\"mode\" the most frequent one",
                                missing));
    }
    missing_ += missing;
    TableColumn out{cells_.columns()[column]};
    if (keys_.missing == "mode" && !counts.empty()) {
      out.fill = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
                   return a.second < b.second;
                 })->first;
    } else if (missing > 0) {
      out.fill = kMissingLevel;
      counts[kMissingLevel] += missing;
    }
    if (static_cast<std::int64_t>(counts.size()) > keys_.levels) {
      throw DataError(
          fmt::format("{}: \"{}\" is one of {} different words, more than levels = {}; ignore = {} leaves "
                      "the column out, levels = {} takes them all",
                      cells_.place(rows_.front(), column), trimmed(cells_.cell(rows_.front(), column)), counts.size(),
                      keys_.levels, toml_text(std::vector{out.name}), counts.size()));
    }
    for (const auto& [level, count] : counts) {
      out.levels.push_back(level);
    }
    if (out.fill == kMissingLevel) {
      const auto mark = marks.size() == 1 ? *marks.begin() : kMissingLevel;  // as the file writes it, in the same place
      if (const auto shown = mark.empty() ? "\"\"" : mark; counts.count(shown) == 0) {
        std::replace(out.levels.begin(), out.levels.end(), out.fill, shown);
        out.fill = shown;
      }
      missing_levels_.insert(mark.empty() ? out.fill : '"' + out.fill + '"');
    }
    return out;
  }

  [[noreturn]] void throw_missing(std::int64_t row, std::size_t column, const std::string& what) const {
    throw DataError(fmt::format("{}: \"{}\", {}", cells_.place(row, column), trimmed(cells_.cell(row, column)), what));
  }

  static double mean(const std::vector<double>& values) {
    const auto count = static_cast<double>(values.size());
    double out = 0, rest = 0;
    for (const auto x : values) {
      out += x / count;
    }
    for (const auto x : values) {  // what rounding lost
      rest += (x - out) / count;
    }
    return out + rest;
  }
  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const auto half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : values[half - 1] / 2 + values[half] / 2;
  }
  /// The most frequent value, the least of several.
  static double mode(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    double out = values.front();
    std::ptrdiff_t most = 0;
    for (auto begin = values.begin(); begin != values.end();) {
      const auto end = std::upper_bound(begin, values.end(), *begin);
      if (end - begin > most) {
        most = end - begin;
        out = *begin;
      }
      begin = end;
    }
    return out;
  }

  const CellTable& cells_;
  const std::vector<std::int64_t>& rows_;
  const std::vector<std::string>& labels_;
  std::string format_;
  EncodingKeys keys_;
  std::set<std::string> categorical_;  // columns that are said to be
  std::int64_t missing_ = 0;
  std::set<std::string> missing_levels_;  // as they are called
  std::string left_out_;
};

/// Keys of a later table must say what the first one's said, or nothing.
EncodingKeys later_keys(const TableEncoding& encoding, const nlohmann::json& table, const std::string& format) {
  auto keys = read_keys<EncodingKeys>(table, format);
  check_word(format, "unknown", keys.unknown, {"refuse", "zeros"});
  const auto refuse = [&](const char* key, const std::string& given, const std::string& used) {
    throw InvalidArgument(
        fmt::format("{}: key {} = {}, but the training data of the first stage is read with {}: say it "
                    "there alone",
                    format, key, given, used));
  };
  if (table.contains("standardize") && keys.standardize != encoding.standardize) {
    refuse("standardize", key_text(keys.standardize), key_text(encoding.standardize));
  }
  if (table.contains("missing") && keys.missing != encoding.missing) {
    refuse("missing", '"' + keys.missing + '"', '"' + encoding.missing + '"');
  }
  std::set<std::string_view> known;
  for (const auto& column : encoding.columns) {
    known.insert(column.name);
  }
  for (const auto& name : keys.input) {
    if (!known.contains(name)) {
      refuse("input", toml_text(keys.input), "other columns");
    }
  }
  return keys;
}

}  // namespace

TableEncoding fit_encoding(const CellTable& cells, const std::vector<std::int64_t>& rows,
                           const std::vector<std::string>& labels, const nlohmann::json& table,
                           const std::string& format, bool standardize, std::vector<std::string>& notes) {
  return Fit(cells, rows, labels, table, format, standardize).encoding(notes);
}

at::Tensor encode(const TableEncoding& encoding, const CellTable& cells, const std::vector<std::int64_t>& rows,
                  const nlohmann::json& table, const std::string& format) {
  const auto keys = later_keys(encoding, table, format);
  const auto width = encoding.width();
  auto out = at::zeros({static_cast<std::int64_t>(rows.size()), width}, at::kDouble);
  auto* const values = out.mutable_data_ptr<double>();
  std::int64_t begin = 0;  // of a column's inputs
  for (const auto& column : encoding.columns) {
    const auto found = cells.column(column.name);
    if (!found) {
      throw DataError(fmt::format("{}: {}; the training data of the first stage has it", cells.path().string(),
                                  unknown_name("column", column.name, cells.columns())));
    }
    std::unordered_map<std::string, std::int64_t> numbers;
    for (const auto& level : column.levels) {
      numbers.emplace(level, static_cast<std::int64_t>(numbers.size()));
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      auto* const row = values + static_cast<std::int64_t>(i) * width + begin;
      const auto cell = cells.cell(rows[i], *found);
      const bool missing = is_missing(cell);
      if (column.levels.empty()) {
        const auto number = number_in(missing ? column.fill : cell);
        if (!number) {
          throw DataError(fmt::format(
              "{}: {}", cells.place(rows[i], *found),
              missing
                  ? fmt::format("\"{}\", a missing number; missing = \"mean\" in the first stage's train table fills "
                                "it in",
                                trimmed(cell))
                  : why_no_number(cell) + ", as the training data's are"));
        }
        *row = (*number - column.shift) / column.scale;
        continue;
      }
      const auto level = missing ? (column.fill.empty() ? kMissingLevel : column.fill) : level_of(cell);
      const auto number = numbers.find(level);
      if (number != numbers.end()) {
        row[number->second] = 1;
      } else if (keys.unknown == "refuse") {
        throw DataError(
            fmt::format("{}: \"{}\" is none of the training data's {}; unknown = \"zeros\" takes it for none",
                        cells.place(rows[i], *found), missing ? trimmed(cell) : level, toml_text(column.levels)));
      }
    }
    begin += column.levels.empty() ? 1 : static_cast<std::int64_t>(column.levels.size());
  }
  return out;
}

}  // namespace detail
}  // namespace whence
