#include "inspect_source.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "json.h"
#include "sniff.h"
#include "whence/core/files.h"
#include "whence/data/dataset.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kShown = 8;  // values of a column

Json inspect_column(const Source& table, std::size_t column, const ColumnFacts& facts) {
  std::map<std::string, std::int64_t> counts;
  for (const auto& row : table.rows) {
    ++counts[row[column]];
  }
  const auto missing = static_cast<std::int64_t>(table.rows.size()) - facts.filled;
  std::string kind = facts.is_number() ? "numbers" : facts.is_text() ? "texts" : "words";
  Json out =
      fmt::format("{}, {} different{}", kind, facts.distinct, missing > 0 ? fmt::format(", {} missing", missing) : "");
  if (!facts.is_text() && counts.size() <= kShown) {
    std::vector<std::string> shown;
    for (const auto& [value, count] : counts) {
      shown.push_back(fmt::format("{} × {}", count, value.empty() ? "\"\"" : value));
    }
    out = fmt::format("{}: {}", out.get<std::string>(), fmt::join(shown, ", "));
  }
  return out;
}

/// Images with their labels.
Json inspect_images(const nlohmann::json& table) {
  const auto data = read_dataset(table, "", TargetKind::kClasses);
  Json out{{"examples", data.size()}, {"input", data.input_shape()}};
  const auto counts = at::bincount(data.targets(), {}, static_cast<std::int64_t>(data.classes().size()));
  for (std::size_t c = 0; c < data.classes().size(); ++c) {
    out["classes"][data.classes()[c]] = counts[static_cast<std::int64_t>(c)].item<std::int64_t>();
  }
  return out;
}

}  // namespace

Json inspect_source(const fs::path& path) {
  const auto found = sniff(path);
  if (found.empty()) {
    return {{"kind", "data"}, {"format", "idx"}, {"holds", "labels, which are read with their images: inspect those"}};
  }
  const auto& source = found.front();
  Json out{{"kind", "data"}, {"format", source.format}};
  switch (source.kind) {
    case SourceKind::kTable: {
      out["rows looked at"] = source.rows.size();
      const auto facts = facts_of(source);
      Json::object_t columns;  // whose own way to add one looks through all that are there
      for (std::size_t c = 0; c < source.columns.size(); ++c) {
        const auto& name = source.columns[c];
        columns.emplace_back(name.empty() ? fmt::format("(column {})", c) : name,
                             inspect_column(source, c, facts.at(name)));
      }
      if (!columns.empty()) {
        out["columns"] = std::move(columns);
      }
      for (const auto& name : source.structured) {
        out["columns"][name] = "lists or objects, which no input can be";
      }
      break;
    }
    case SourceKind::kPlainText: {
      const auto text = read_text(path);
      out["lines"] = std::count(text.begin(), text.end(), '\n');
      out["bytes"] = text.size();
      break;
    }
    case SourceKind::kIdx:
      out.update(inspect_images({{"format", "idx"}, {"images", path.string()}, {"labels", source.labels.string()}}));
      out["labels"] = source.labels.string();
      break;
    case SourceKind::kCifar:
      out.update(inspect_images({{"format", "cifar"}, {"file", path.string()}}));
      break;
    case SourceKind::kModelFolder:
    case SourceKind::kCheckpoint:
    case SourceKind::kExported:
    case SourceKind::kTokenizer:
    case SourceKind::kTensors:
      break;
  }
  return out;
}

}  // namespace whence::cli
