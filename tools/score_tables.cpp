// `--format` of rank and score.
#include "score_tables.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>

#include "result.h"
#include "whence/core/error.h"
#include "whence/store/score_store.h"
#include "whence/store/self_scores.h"
#include "whence/store/table_file.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kHead = 120;  // bytes of a text

/// Ids, labels and texts of examples or queries; without a column of what they have not.
std::vector<OutputColumn> describe(const Dataset& data, const char* noun) {
  std::vector<OutputColumn> out{{noun, data.ids().cpu()}};
  OutputColumn labels{"label"}, texts{"text"};
  for (std::int64_t row = 0; row < data.size(); ++row) {
    if (data.targets().defined()) {
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

void write(const fs::path& folder, const std::string& name, const std::string& format,
           const std::vector<OutputColumn>& columns) {
  if (format == "csv") {
    write_csv(folder / (name + ".csv"), columns);
  } else if (format == "jsonl") {
    write_jsonl(folder / (name + ".jsonl"), columns);
  }
}

/// The name of a column's file; `suffix` is ".STAGE" or nothing.
std::string array_name(const std::string& noun, const std::string& column, const std::string& suffix) {
  return fmt::format("{}-{}{}.npy", noun, column == noun ? "ids" : column + "s", suffix);
}

/// Ids and labels beside a matrix.
void write_arrays(const fs::path& folder, const std::vector<OutputColumn>& columns, const std::string& noun,
                  const std::string& suffix) {
  for (const auto& column : columns) {
    const auto path = folder / array_name(noun, column.name, suffix);
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

std::vector<fs::path> table_files(const fs::path& folder, const AttributionRun& run,
                                  const std::vector<std::string>& formats) {
  std::vector<std::string> suffixes;
  for (const auto k : run.stages()) {
    suffixes.push_back(run.every_stage() ? "." + run.chain()[k].name : "");
  }
  std::vector<fs::path> out;
  for (const auto& format : formats) {
    if (format == "safetensors") {
      continue;
    }
    for (const char* whole : {"queries", "ranking"}) {
      out.push_back(folder / fmt::format("{}.{}", whole, format));
    }
    for (const auto& suffix : suffixes) {
      out.push_back(folder / fmt::format("{}{}.{}", run.self() ? "self" : "scores", suffix, format));
      for (const char* column : {"label", "text"}) {
        out.push_back(folder / array_name("example", column, suffix));
        out.push_back(folder / array_name("query", column, ""));
      }
      out.push_back(folder / array_name("example", "example", suffix));
      out.push_back(folder / array_name("query", "query", ""));
    }
  }
  return out;
}

void write_score_tables(const fs::path& folder, const AttributionRun& run, const std::vector<std::string>& formats) {
  if (formats == std::vector<std::string>{"safetensors"}) {
    return;
  }
  struct Part {
    std::string name;  ///< "scores", "self", with ".STAGE" behind it where every stage was asked for.
    at::Tensor scores;
  };
  std::vector<Part> parts;
  if (run.self()) {
    for (const auto& stage : read_self_scores(folder).stages) {
      parts.push_back({stage.name, stage.scores});
    }
  } else {
    for (const auto& stage : read_scores(folder).stages) {
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
        write_npy(folder / (part.name + ".npy"), part.scores);
        write_arrays(folder, examples, "example", suffix);
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
      write(folder, part.name, format, columns);
    }
  }
  for (const auto& format : formats) {
    if (format == "npy") {
      write_arrays(folder, queries, "query", "");
    } else if (!queries.empty()) {
      auto columns = queries;
      columns.push_back({std::string(to_string(run.measurement())), run.measurements()});
      write(folder, "queries", format, columns);
    }
  }
}

void write_ranking_tables(const fs::path& folder, const AttributionRun& run, const std::vector<Ranking>& rankings,
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
  for (const auto& format : formats) {
    write(folder, "ranking", format == "jsonl" ? "" : format, columns);
  }
}

}  // namespace whence::cli
