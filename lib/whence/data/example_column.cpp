#include "whence/data/example_column.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/data/safetensors.h"
#include "whence/data/table_preview.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

std::string text_of(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : json_text(value);
}

/// The column of one table's file, by row.
std::vector<std::string> column_of(const nlohmann::json& table, const fs::path& folder, const std::string& column) {
  const auto format = table.value("format", "");
  const auto path = folder / table.value("file", "");
  std::vector<std::string> out;
  if (format == "csv" || format == "tsv") {
    if (!table.value("header", true)) {
      throw InvalidArgument(fmt::format("column \"{}\": header = false, so no column has a name", column));
    }
    const auto cells = preview_table(path, format, std::numeric_limits<std::size_t>::max());
    const auto found = std::find(cells.columns.begin(), cells.columns.end(), column);
    if (found == cells.columns.end()) {
      throw InvalidArgument(fmt::format("{} in {}", unknown_name("column", column, cells.columns), path.string()));
    }
    for (const auto& row : cells.rows) {
      out.push_back(row[static_cast<std::size_t>(found - cells.columns.begin())]);
    }
  } else if (format == "jsonl") {
    read_json_lines(path, [&](const nlohmann::json& object, std::int64_t, const std::string& where) {
      const auto found = object.is_object() ? object.find(column) : object.end();
      if (found == object.end() || found->is_null()) {
        throw DataError(fmt::format("{}: \"{}\" is missing", where, column));
      }
      out.push_back(text_of(*found));
    });
  } else if (format == "safetensors") {
    const auto tensors = read_safetensors(path);
    if (!tensors.contains(column) || tensors.at(column).dim() != 1 || tensors.at(column).is_floating_point()) {
      throw DataError(fmt::format("{}: expected a tensor \"{}\" of integers [N]", path.string(), column));
    }
    const auto values = tensors.at(column).to(at::kLong);
    for (std::int64_t i = 0; i < values.size(0); ++i) {
      out.push_back(std::to_string(values[i].item<std::int64_t>()));
    }
  } else {
    throw InvalidArgument(fmt::format(
        "column \"{}\": format {} has no columns of its own, expected csv, tsv, jsonl or safetensors", column, format));
  }
  return out;
}

/// The id of each example.
std::vector<std::int64_t> ids_of(const Dataset& data) {
  const auto ids = data.ids().to(at::kCPU, at::kLong).contiguous();
  return {ids.const_data_ptr<std::int64_t>(), ids.const_data_ptr<std::int64_t>() + ids.numel()};
}

}  // namespace

std::vector<std::string> read_example_column(const nlohmann::json& table, const fs::path& folder,
                                             const std::string& column, const Dataset& data) {
  const auto tables = table.is_array() ? table : nlohmann::json::array({table});
  const auto& origins = data.origins();
  if (origins.size() != tables.size() ||
      std::any_of(origins.begin(), origins.end(), [](const Origin& origin) { return origin.blocks; })) {
    throw InvalidArgument(
        fmt::format("column \"{}\": the rows of the data are cut into several examples, expected one each", column));
  }
  std::vector<std::string> by_id;
  for (std::size_t i = 0; i < tables.size(); ++i) {
    by_id.resize(static_cast<std::size_t>(origins[i].first_id));
    for (auto& cell : column_of(tables[i], folder, column)) {
      by_id.push_back(std::move(cell));
    }
  }
  std::vector<std::string> out;
  for (const auto id : ids_of(data)) {
    if (id < 0 || static_cast<std::size_t>(id) >= by_id.size() || by_id[static_cast<std::size_t>(id)].empty()) {
      throw DataError(fmt::format("example {} has nothing in column \"{}\"", id, column));
    }
    out.push_back(by_id[static_cast<std::size_t>(id)]);
  }
  return out;
}

std::vector<std::string> tables_of_examples(const nlohmann::json& table, const Dataset& data) {
  const auto& origins = data.origins();
  if (!table.is_array() || table.size() < 2 || origins.size() != table.size()) {
    throw InvalidArgument(
        "a single table of data, expected a list of two or more, or the column that tells them apart");
  }
  std::vector<std::string> out;
  for (const auto id : ids_of(data)) {
    const auto behind = std::upper_bound(origins.begin(), origins.end(), id,
                                         [](std::int64_t at, const Origin& origin) { return at < origin.first_id; });
    out.push_back(fmt::format("{} ({})", behind - origins.begin(), (behind - 1)->file.string()));
  }
  return out;
}

}  // namespace whence
