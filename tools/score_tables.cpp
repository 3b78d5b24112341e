// `--format` of rank and score.
#include "score_tables.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "result.h"
#include "whence/core/error.h"
#include "whence/store/score_store.h"
#include "whence/store/self_scores.h"
#include "whence/store/table_file.h"

namespace whence::cli {
namespace {

constexpr std::size_t kHead = 120;  // bytes of a text

/// Ids, labels and texts of examples or queries; without a column of what they have not.
std::vector<OutputColumn> describe(const Dataset& data, const char* noun) {
  std::vector<OutputColumn> out{{noun, data.ids().cpu()}};
  OutputColumn labels{"label"}, texts{"text"};
  for (std::int64_t row = 0; row < data.size(); ++row) {
    if (data.targets().defined() && data.outputs() > 0) {
      labels.texts.push_back(example_label(data, row));
    }
    if (data.is_text()) {
      std::string text;
      for (const auto& [token, score] : visible_tokens(data, row, {})) {
        text += token;
        if (text.size() > kHead) {
          break;
        }
      }
      texts.texts.push_back(one_line(text, kHead));
    }
  }
  for (auto* column : {&labels, &texts}) {
    if (!column->texts.empty()) {
      out.push_back(std::move(*column));
    }
  }
  return out;
}

std::vector<std::string> origins_of(const Dataset& data) {
  std::vector<std::string> out;
  for (std::int64_t row = 0; row < data.size(); ++row) {
    out.push_back(data.origin(row));
  }
  return out;
}

void write(ResultWriter& out, const std::string& name, const std::string& format,
           const std::vector<OutputColumn>& columns) {
  if (format == "csv") {
    write_csv(out.place(name + ".csv"), columns);
  } else if (format == "jsonl") {
    write_jsonl(out.place(name + ".jsonl"), columns);
  }
}

/// The name of a column's file; `suffix` is ".STAGE" or nothing.
std::string array_name(const std::string& noun, const std::string& column, const std::string& suffix) {
  return fmt::format("{}-{}{}.npy", noun, column == noun ? "ids" : column + "s", suffix);
}

/// Ids and labels beside a matrix.
void write_arrays(ResultWriter& out, const std::vector<OutputColumn>& columns, const std::string& noun,
                  const std::string& suffix) {
  for (const auto& column : columns) {
    const auto path = out.place(array_name(noun, column.name, suffix));
    if (column.numbers.defined()) {
      write_npy(path, column.numbers);
    } else {
      write_npy(path, column.texts);
    }
  }
}

}  // namespace

std::vector<std::string> parse_formats(const std::string& text) {
  static const std::vector<std::string> kKnown{"safetensors", "csv", "jsonl", "npy"};
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end = std::min(text.find(',', begin), text.size());
    const auto word = text.substr(begin, end - begin);
    if (std::find(kKnown.begin(), kKnown.end(), word) == kKnown.end()) {
      throw UsageError(unknown_name("--format", word, kKnown));
    }
    out.push_back(word);
    begin = end + 1;
  }
  return out;
}

std::vector<std::string> table_files(const AttributionRun& run, const std::vector<std::string>& formats) {
  std::vector<std::string> out;
  for (const auto& format : formats) {
    const auto arrays = [&](const char* noun, const std::string& suffix) {
      for (const char* column : {noun, "label", "text"}) {
        out.push_back(array_name(noun, column, suffix));
      }
    };
    if (format == "safetensors") {
      continue;
    }
    for (const auto k : run.stages()) {
      const auto suffix = run.every_stage() ? "." + run.stage_name(k) : std::string();
      out.push_back(fmt::format("{}{}.{}", run.self() ? "self" : "scores", suffix, format));
      if (format == "npy") {
        arrays("example", suffix);
      }
    }
    if (run.self()) {
      continue;
    }
    if (format == "npy") {
      arrays("query", "");
    } else {
      out.push_back("queries." + format);
    }
    if (format == "csv" && run.ranks()) {
      out.emplace_back("ranking.csv");
    }
  }
  return out;
}

void write_score_tables(AttributionRun& run, const std::vector<std::string>& formats) {
  if (formats == std::vector<std::string>{"safetensors"}) {
    return;
  }
  struct Part {
    std::string name;  ///< "scores", "self", with ".STAGE" behind it where every stage was asked for.
    at::Tensor scores;
  };
  std::vector<Part> parts;
  auto& out = run.out();
  const auto scores = out.find("scores.safetensors");
  if (run.self()) {
    for (const auto& stage : read_self_scores(scores).stages) {
      parts.push_back({stage.name, stage.scores});
    }
  } else {
    for (const auto& stage : read_scores(scores).stages) {
      parts.push_back({stage.name, stage.scores});
    }
  }
  const auto queries = run.self() ? std::vector<OutputColumn>{} : describe(run.queries(), "query");
  for (const auto& part : parts) {
    const auto dot = part.name.find('.');
    const auto suffix = dot == part.name.npos ? "" : part.name.substr(dot);
    const auto k = suffix.empty() ? run.stages().front() : run.stage_index(suffix.substr(1));
    const auto examples = describe(run.chain()[k].objective.data(), "example");
    for (const auto& format : formats) {
      if (format == "npy") {
        write_npy(out.place(part.name + ".npy"), part.scores);
        write_arrays(out, examples, "example", suffix);
        continue;
      }
      auto columns = examples;
      if (run.self()) {
        columns.push_back({"score", part.scores});
        columns.push_back({"origin", {}, origins_of(run.chain()[k].objective.data())});
      }
      for (std::int64_t q = 0; q < run.queries().size() && !run.self(); ++q) {
        columns.push_back({fmt::format("query {}", run.queries().ids()[q].item<std::int64_t>()), part.scores[q]});
      }
      write(out, part.name, format, columns);
    }
  }
  for (const auto& format : formats) {
    if (format == "npy") {
      write_arrays(out, queries, "query", "");
    } else if (!queries.empty()) {
      auto columns = queries;
      columns.push_back({std::string(to_string(run.measurement())), run.measurements()});
      write(out, "queries", format, columns);
    }
  }
}

void write_ranking_tables(AttributionRun& run, const std::vector<Ranking>& rankings,
                          const std::vector<std::string>& formats) {
  std::vector<std::int64_t> queries, places, examples;
  std::vector<double> removals, scores;
  OutputColumn stages{"stage"}, sides{"side"}, labels{"label"};
  for (const auto& ranking : rankings) {
    const auto& data = run.chain()[run.stage_index(ranking.stage)].objective.data();
    for (const auto& [side, list] :
         {std::pair("proponent", &ranking.proponents), std::pair("opponent", &ranking.opponents)}) {
      for (std::size_t place = 0; place < list->size(); ++place) {
        const auto& entry = (*list)[place];
        queries.push_back(ranking.query);
        places.push_back(static_cast<std::int64_t>(place) + 1);
        examples.push_back(entry.example);
        if (entry.removal) {
          removals.push_back(*entry.removal);
        }
        scores.push_back(entry.score);
        stages.texts.push_back(ranking.stage);
        sides.texts.emplace_back(side);
        labels.texts.push_back(example_label(data, row_of(data, entry.example)));
      }
    }
  }
  const auto tensor = [](const auto& list) { return at::tensor(list); };
  std::vector<OutputColumn> columns{{"query", tensor(queries)},    stages, sides, {"place", tensor(places)},
                                    {"example", tensor(examples)}, labels};
  if (!removals.empty()) {  // all of them or none: the method predicts them or does not
    columns.push_back({"removal", at::tensor(removals, at::kDouble)});
  }
  columns.push_back({"score", at::tensor(scores, at::kDouble)});
  // an earlier table of this result is of another --top
  if (std::find(formats.begin(), formats.end(), "csv") != formats.end() ||
      run.out().finished(run.record().key(), {"ranking.csv"}) != nullptr) {
    write_csv(run.out().place("ranking.csv"), columns);
  }
}

}  // namespace whence::cli
