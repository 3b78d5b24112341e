#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "whence/core/json.h"
#include "whence/core/quoted.h"
#include "whence/data/detail/table.h"
#include "whence/data/format.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct JsonlKeys {
  std::string file;
  std::string label = "label";
  std::vector<std::string> labels;
  detail::EncodingKeys encoding;
  detail::TextKeys texts;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, detail::kRequiredPath, "one JSON object a line");
    field("label", self.label, detail::Takes{"a key"},
          "key of the labels, where a loss asks for classes, or of the values");
    field("labels", self.labels, detail::Takes{"a list of keys", "none"}, detail::kLabelsHelp);
    detail::EncodingKeys::fields(self.encoding, field);
    detail::TextKeys::fields(self.texts, field);
  }
};

/// A value as a template shows it, or as the cell of a table.
std::string cell_of(const nlohmann::json& value, const std::string& where, const std::string& remedy = "") {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_null()) {
    return "";
  }
  if (value.is_structured()) {
    throw DataError(
        fmt::format("{} holds a list or an object, expected a text, a number, true or false{}", where, remedy));
  }
  return value.dump();
}

/// A label as the cell of a table. Throws DataError for a class that the reader of JSON has rounded.
std::string label_of(const nlohmann::json& value, const std::string& where, bool classes) {
  constexpr double kExact = 9007199254740992;  // 2^53: whole numbers below it are different float64s
  if (classes && value.is_number_float() && std::abs(value.get<double>()) >= kExact) {
    throw DataError(
        fmt::format("{}: a label that reading JSON rounds, to {}: write it in quotes", where, value.dump()));
  }
  return std::string(detail::trimmed(cell_of(value, where)));
}

class JsonlFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<JsonlKeys>(); }
  bool has_columns() const override { return true; }
  bool has_loose_rows() const override { return true; }

  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind wanted) const override {
    const auto keys = detail::read_keys<JsonlKeys>(table, "jsonl");
    const auto path = folder / keys.file;
    const bool texts = detail::asks_for_texts(table);
    std::vector<nlohmann::json> objects;
    std::vector<std::int64_t> lines;
    std::set<std::string> names;
    read_json_lines(path, [&](nlohmann::json object, std::int64_t line, const std::string& where) {
      if (!object.is_object()) {
        throw DataError(where + (object.is_array() ? ": expected a JSON object; if the file is one list: jq -c '.[]'"
                                                   : ": expected a JSON object"));
      }
      for (const auto& [key, value] : object.items()) {
        names.insert(key);
      }
      lines.push_back(line);
      objects.push_back(std::move(object));
    });
    const std::vector<std::string> columns(names.begin(), names.end());
    SourceExamples source;
    source.files = {path};
    source.inputs_from = source.targets_from = path.string();
    const auto where = [&](std::size_t i, const std::string& column) {
      return fmt::format("{}: line {}: \"{}\"", path.string(), lines[i], column);
    };
    if (detail::has_value_columns(table, "jsonl", keys.labels)) {
      source.value_columns = keys.labels;
      std::vector<double> numbers;
      for (const auto& name : keys.labels) {
        if (!objects.empty() && names.count(name) == 0) {
          throw InvalidArgument(
              fmt::format("jsonl: key labels: {} in {}", unknown_name("key", name, columns), path.string()));
        }
      }
      for (std::size_t i = 0; i < objects.size(); ++i) {
        for (const auto& name : keys.labels) {
          const auto found = objects[i].find(name);
          const auto cell = found == objects[i].end() ? ""
                            : found->is_boolean()     ? (*found ? "1" : "0")
                                                      : cell_of(*found, where(i, name));
          numbers.push_back(detail::target_value(detail::trimmed(cell), path, lines[i], name));
        }
      }
      source.values = at::tensor(numbers, at::kDouble).view({-1, static_cast<std::int64_t>(keys.labels.size())});
    } else if (!texts || !are_tokens(wanted)) {
      if (!objects.empty() && names.count(keys.label) == 0) {
        throw InvalidArgument(fmt::format("jsonl: key label: {} in {}{}", unknown_name("key", keys.label, columns),
                                          path.string(), detail::hint_without_label(table)));
      }
      source.label_column = keys.label;
      const bool classes = wanted == TargetKind::kClasses || table.contains("classes");
      for (std::size_t i = 0; i < objects.size(); ++i) {
        const auto found = objects[i].find(keys.label);
        source.label_cells.push_back(found == objects[i].end() ? "" : label_of(*found, where(i, keys.label), classes));
      }
    }
    if (texts) {
      source.records.columns = columns;
      source.records.lines = lines;
      const auto used = detail::columns_of_texts(table, "jsonl", columns);
      for (std::size_t i = 0; i < objects.size(); ++i) {
        auto& row = source.records.rows.emplace_back(columns.size());
        for (const auto column : used) {
          const auto found = objects[i].find(columns[column]);
          if (found == objects[i].end() || found->is_null()) {
            throw DataError(where(i, columns[column]) + (found == objects[i].end() ? " is missing" : " is null"));
          }
          row[column] = cell_of(*found, where(i, columns[column]));
        }
      }
      return source;
    }
    const auto& [input, ignore] = std::tie(keys.encoding.input, keys.encoding.ignore);
    const std::set<std::string> listed =
        input.empty() ? std::set(ignore.begin(), ignore.end()) : std::set(input.begin(), input.end());
    std::vector<bool> used;
    for (const auto& name : columns) {
      const bool target = source.value_columns.empty()
                              ? name == keys.label
                              : std::find(keys.labels.begin(), keys.labels.end(), name) != keys.labels.end();
      used.push_back(target || listed.contains(name) != input.empty());
    }
    source.table = std::make_shared<detail::CellTable>(path, columns);
    std::vector<std::string> row(columns.size());
    for (std::size_t i = 0; i < objects.size(); ++i) {
      for (std::size_t c = 0; c < columns.size(); ++c) {
        const auto& name = columns[c];
        const auto found = objects[i].find(name);
        row[c] = !used[c] || found == objects[i].end()
                     ? ""
                     : cell_of(*found, where(i, name),
                               "; ignore = " + toml_text(std::vector{name}) + " leaves the column out");
      }
      source.table->add(row, lines[i]);
    }
    return source;
  }
};

}  // namespace

WHENCE_FORMAT(jsonl, JsonlFormat)

}  // namespace whence
