// The table of `whence evaluate --methods` for people.
#include <fmt/format.h>

#include <algorithm>

#include "evaluate_table.h"
#include "say.h"

namespace whence::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string cell(const Json& value, const char* format = "{:.3f}") {
  return value.is_number() ? fmt::format(fmt::runtime(format), value.get<double>()) : "-";
}

std::string with_interval(const Json& value, const Json& interval, const char* format = "{:.3f}") {
  return value.is_number() && interval[0].is_number()
             ? fmt::format("{} [{}, {}]", cell(value, format), cell(interval[0], format), cell(interval[1], format))
             : cell(value, format);
}

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

void print_comparison(const Json& result) {
  const auto against = result["against"].get<std::string>();
  say("{} of {}, {} queries", against, result["stage"].get<std::string>(), result["queries"].get<std::int64_t>());
  if (result.contains("trainings")) {
    say("; {} trainings from the {}", result["trainings"].get<std::int64_t>(), result["train-from"].get<std::string>());
  }
  say("\n");
  std::vector<Cells> rows;
  const bool ceilinged = result.contains("ceiling");
  const std::string value = against == "lds" ? "lds" : "pearson";
  for (const auto& row : result["table"]) {
    Cells head{"method"}, cells{row["method"].get<std::string>()};
    const auto put = [&](const std::string& name, const std::string& text) {
      head.push_back(name);
      cells.push_back(text);
    };
    if (ceilinged) {
      put(value, with_interval(row[value], row[value + "-interval-95"]));
      put("of the ceiling", with_interval(row["share-of-ceiling"], row["share-interval-95"], "{:.2f}"));
      if (value == "pearson") {
        put("spearman", cell(row["spearman"]));
        put("slope", cell(row["slope"]));
      }
    } else if (against == "removal") {
      for (const auto& removed : row["removals"]) {
        put(fmt::format("without {:g} %", removed["percent"].get<double>()),
            with_interval(removed["worse-by"], removed["interval-95"], "{:+.3g}"));
      }
    } else if (against == "mislabel") {
      put("by", row["by"].get<std::string>());
      put("auroc", with_interval(row["auroc"], row["auroc-interval-95"]));
      for (const auto& at : row["found"]) {
        put(fmt::format("in {:g} %", 100 * at["inspected"].get<double>()), cell(at["found"], "{:.2f}"));
      }
    } else {
      put("mrr", with_interval(row["mrr"], row["mrr-interval-95"]));
      for (const auto& [key, found] : row.items()) {
        if (key.starts_with("recall@")) {
          put(key, cell(found));
        }
      }
    }
    put("seconds", cell(row["seconds"], "{:.2g}"));
    if (rows.empty()) {
      rows.push_back(head);
    }
    rows.push_back(cells);
  }
  if (ceilinged && result["ceiling"].is_object()) {
    rows.push_back({"ceiling: another seed",
                    with_interval(result["ceiling"][value], result["ceiling"][value + "-interval-95"]), "1"});
  }
  print_rows(rows);
  if (against == "removal") {
    say("  how much worse the queries' {} becomes, on the mean\n", result["measurement"].get<std::string>());
  } else if (against == "mislabel") {
    say("  the share of {} changed labels that is found in the first part of {} examples\n",
        result["mislabelled"].get<std::int64_t>(), result["examples"].get<std::int64_t>());
  }
  if (result.contains("seconds-a-training") && result["seconds-a-training"].is_number()) {
    say("  {:.2g} s a training, the largest |gradient| at the end {:.1e}\n", result["seconds-a-training"].get<double>(),
        result["largest-gradient-norm"].get<double>());
  }
}

}  // namespace whence::cli
