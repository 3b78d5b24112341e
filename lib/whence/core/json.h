#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/progress.h"
#include "whence/core/text.h"

namespace whence {

/// What is taken for JSON beyond its grammar. Files may come from anybody, and what walks through a value calls itself
/// for each list within a list.
struct JsonRules {
  int depth = 512;               ///< Lists and objects within each other, at most.
  bool repeated_keys = true;     ///< Of an object's equal keys the last counts; else they are refused.
  std::uint64_t first_byte = 0;  ///< Of the text in its file, which messages count from.
};

/// The only place where JSON is parsed: in time linear in the text, and open to interruption. Throws DataError, which
/// begins with `where`, for a text that is not JSON or breaks a rule. `Json` is nlohmann::json or
/// nlohmann::ordered_json.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, const std::string& where, const JsonRules& rules = {});
extern template nlohmann::json parse_json(std::string_view, const std::string&, const JsonRules&);
extern template nlohmann::ordered_json parse_json(std::string_view, const std::string&, const JsonRules&);

/// The one way to write JSON: on one line, or indented. A byte that is no UTF-8, as paths and arguments may have,
/// becomes U+FFFD.
template <class Json>
std::string json_text(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

/// "2.5", "[1,2]", the first 160 bytes of something longer: what a message shows of a value.
std::string brief(const nlohmann::json& value);

/// Throws what read_utf8() throws, and DataError naming a file that is not JSON or breaks a rule.
template <class Json = nlohmann::json>
Json read_json(const std::filesystem::path& path, const JsonRules& rules = {}) {
  return parse_json<Json>(read_utf8(path), path.string(), rules);
}

/// The object that a text spells; nothing where it is no JSON or another value, as what stands in metadata may be.
template <class Json = nlohmann::json>
std::optional<Json> json_object(std::string_view text) {
  try {
    auto out = parse_json<Json>(text, "");
    return out.is_object() ? std::optional(std::move(out)) : std::nullopt;
  } catch (const DataError&) {
    return std::nullopt;
  }
}

/// visit(json, line, "FILE: line N") for each line that is not blank; lines are counted from 1.
template <class Json = nlohmann::json, class Visit>
void read_json_lines(const std::filesystem::path& path, const Visit& visit) {
  const auto text = read_utf8(path);
  std::int64_t line = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const auto row = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), row.size() + 1));
    constexpr std::int64_t kBetweenChecks = 1 << 14;
    if (++line % kBetweenChecks == 0) {
      check_interruption();
    }
    if (row.find_first_not_of(" \t\r") != row.npos) {
      const auto where = path.string() + ": line " + std::to_string(line);
      visit(parse_json<Json>(row, where, {.repeated_keys = false}), line, where);
    }
  }
}

/// A value of a result's JSON file, which may have been cut, edited or made by somebody else: what is missing or of
/// another type is a DataError with the file, the way to the value, what it is and what was expected: `run.json:
/// stages.finetune.damping = "x", expected a number`. Cheap to copy; all views of a file keep it alive.
class JsonView {
 public:
  using Value = nlohmann::ordered_json;

  JsonView(Value value, std::string where);
  static JsonView read(const std::filesystem::path& path) { return {read_json<Value>(path), path.string()}; }

  JsonView operator[](std::string_view key) const;  ///< Of an object that has it.
  JsonView operator[](std::size_t i) const;         ///< Of a list that is longer.
  JsonView at(std::string_view key) const { return (*this)[key]; }
  JsonView at(std::size_t i) const { return (*this)[i]; }
  bool contains(std::string_view key) const;  ///< False of anything but an object.

  /// T: bool, int, std::int64_t, std::uint64_t (whole numbers that it holds), double, std::string, a vector of
  /// these, or of pairs of a text and a number.
  template <class T>
  T get() const;
  template <class T>
  T value(std::string_view key, T otherwise) const {
    return contains(key) ? (*this)[key].get<T>() : otherwise;
  }
  std::string value(std::string_view key, const char* otherwise) const { return value(key, std::string(otherwise)); }

  bool is_null() const { return value_->is_null(); }
  bool is_number() const { return value_->is_number(); }
  bool is_string() const { return value_->is_string(); }
  std::size_t size() const;  ///< Of a list or an object.
  bool empty() const { return size() == 0; }
  std::vector<JsonView> list() const;                           ///< A list's values.
  std::vector<JsonView> list(std::string_view key) const;       ///< Those of the list under `key`; none without it.
  std::vector<std::pair<std::string, JsonView>> items() const;  ///< An object's.
  const Value& json() const { return *value_; }
  std::string dump() const { return json_text(*value_); }

  template <class T>
  bool operator==(const T& other) const {
    return *value_ == other;
  }
  bool operator==(const JsonView& other) const { return *value_ == *other.value_; }

  /// Throws the DataError for a value that is not what was expected.
  [[noreturn]] void refuse(std::string_view expected) const;

 private:
  struct File {
    Value value;
    std::string where;
  };
  JsonView(std::shared_ptr<const File> file, const Value& value) : file_(std::move(file)), value_(&value) {}
  [[noreturn]] void fail(const std::string& what) const;

  std::shared_ptr<const File> file_;
  const Value* value_;
};

}  // namespace whence
