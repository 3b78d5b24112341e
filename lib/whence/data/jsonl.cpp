#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "whence/core/json.h"
#include "whence/data/detail/keys.h"
#include "whence/data/detail/texts.h"
#include "whence/data/format.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct JsonlKeys {
  std::string file;
  std::string label = "label";
  detail::TextKeys texts;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, detail::kRequiredPath, "one JSON object a line");
    field("label", self.label, detail::Takes{"a key"}, "key of the labels, where a loss asks for classes");
    detail::TextKeys::fields(self.texts, field);
  }
};

/// A value as a template shows it.
std::string cell_of(const nlohmann::json& value, const std::string& where) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_null()) {
    return "";
  }
  if (value.is_structured()) {
    throw DataError(fmt::format("{} holds a list or an object, expected a text, a number, true or false", where));
  }
  return value.dump();
}

class JsonlFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<JsonlKeys>(); }

  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind wanted) const override {
    const auto keys = detail::read_keys<JsonlKeys>(table, "jsonl");
    const auto path = folder / keys.file;
    std::vector<nlohmann::json> objects;
    std::set<std::string> columns;
    SourceExamples source;
    source.files = {path};
    source.inputs_from = source.targets_from = path.string();
    read_json_lines(path, [&](nlohmann::json object, std::int64_t line, const std::string& where) {
      if (!object.is_object()) {
        throw DataError(where + ": expected a JSON object");
      }
      source.records.lines.push_back(line);
      for (const auto& [key, value] : object.items()) {
        columns.insert(key);
      }
      objects.push_back(std::move(object));
    });
    auto& records = source.records;
    records.columns.assign(columns.begin(), columns.end());
    std::vector<std::string> labels;
    for (std::size_t i = 0; i < objects.size(); ++i) {
      auto& row = records.rows.emplace_back();
      for (const auto& column : records.columns) {
        const auto where = fmt::format("{}: line {}: \"{}\"", path.string(), records.lines[i], column);
        row.push_back(objects[i].contains(column) ? cell_of(objects[i][column], where) : "");
      }
      if (wanted == TargetKind::kClasses) {
        if (!objects[i].contains(keys.label)) {
          throw DataError(fmt::format("{}: line {}: no label \"{}\"", path.string(), records.lines[i], keys.label));
        }
        labels.push_back(cell_of(objects[i][keys.label], path.string()));
      }
    }
    if (wanted == TargetKind::kClasses) {
      detail::set_labels(source, labels);
    }
    return source;
  }
};

}  // namespace

std::unique_ptr<DataFormat> make_jsonl(std::string_view options) {
  parse<NoOptions>(options, "jsonl");
  return std::make_unique<JsonlFormat>();
}

}  // namespace whence
