// The table of `whence evaluate --methods` for people.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "evaluate_table.h"
#include "json.h"
#include "say.h"
#include "truth.h"

namespace whence::cli {
namespace {

using Cells = std::vector<std::string>;

void print_rows(const std::vector<Cells>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) {
      widths[c] = std::max(widths[c], row[c].size());
    }
  }
  for (const auto& row : rows) {
    std::string text;
    for (std::size_t c = 0; c < row.size(); ++c) {
      text += c == 0 ? fmt::format("  {:<{}}", row[c], widths[c]) : fmt::format("  {:>{}}", row[c], widths[c]);
    }
    say("{}\n", text);
  }
}

}  // namespace

Truth::Figure figure_in(const Json& row, const std::string& key, std::string name, double good) {
  const auto number = [](const Json& value) {
    return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
  };
  const auto& interval = row[key + "-interval-95"];
  return {std::move(name), number(row[key]), {number(interval[0]), number(interval[1])}, good};
}

std::string number_cell(const Json& value, const char* format) {
  return value.is_number() ? fmt::format(fmt::runtime(format), value.get<double>()) : "-";
}

std::string interval_cell(const Json& value, const Json& interval, const char* format) {
  return value.is_number() && interval[0].is_number()
             ? fmt::format("{} [{}, {}]", number_cell(value, format), number_cell(interval[0], format),
                           number_cell(interval[1], format))
             : number_cell(value, format);
}

std::string reference_text(const Json& result) {
  constexpr double kLittle = 1e-2;
  const auto apart = result.value("reference-apart", Json());
  return apart.is_number() && apart.get<double>() > kLittle
             ? fmt::format("; with every example they move the queries' measurements by {:.2g} of their size",
                           apart.get<double>())
             : "";
}

void print_comparison(const Json& result, const Truth& truth) {
  say("{} of {}, {} queries", result["against"].get<std::string>(), result["stage"].get<std::string>(),
      result["queries"].get<std::int64_t>());
  if (result.contains("trainings")) {
    say("; {} trainings from the {}{}", result["trainings"].get<std::int64_t>(),
        result["train-from"].get<std::string>(),
        result.contains("goes-on-by") ? " by " + result["goes-on-by"].get<std::string>() : "");
  }
  say("\n");
  std::vector<Cells> rows(1);
  for (const auto& row : result["table"]) {
    auto columns = truth.columns(row);
    columns.emplace(columns.begin(), "method", row["method"].get<std::string>());
    columns.emplace_back("seconds", number_cell(row["seconds"], "{:.2g}"));
    rows.front().clear();
    rows.emplace_back();
    for (auto& [name, cell] : columns) {
      rows.front().push_back(std::move(name));
      rows.back().push_back(std::move(cell));
    }
  }
  if (auto reached = truth.ceiling(result); !reached.empty()) {
    rows.push_back(std::move(reached));
  }
  print_rows(rows);
  if (const auto legend = truth.legend(result); !legend.empty()) {
    say("  {}\n", legend);
  }
  if (result.contains("seconds-a-training") && result["seconds-a-training"].is_number()) {
    say("  {:.2g} s a training, the largest |gradient| at the end {:.1e}{}\n",
        result["seconds-a-training"].get<double>(), result["largest-gradient-norm"].get<double>(),
        reference_text(result));
  }
  if (result.contains("verdict")) {
    say("{}\n", result["verdict"].get<std::string>());
  }
}

}  // namespace whence::cli
