#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace whence::detail {

/// One object of a tokenizer.json. A key that is missing or of another kind is a DataError naming the file, the way to
/// the object and what was expected. Refers to `json`.
class Component {
 public:
  Component(const nlohmann::json& json, std::string file, std::string way = "");

  bool has(const char* key) const;  // there, and not null
  const nlohmann::json& value(const char* key) const;
  Component object(const char* key) const;
  std::vector<Component> objects(const char* key) const;
  std::string text(const char* key) const;
  std::string text_or(const char* key, std::string_view otherwise) const;
  char32_t character(const char* key) const;
  bool flag_or(const char* key, bool otherwise) const;
  std::int64_t count(const char* key) const;  // an integer in [0, 2^31)

  [[noreturn]] void fail(const std::string& what) const;

 private:
  const nlohmann::json* json_;
  std::string file_, way_;
};

/// `json` as an integer in [0, 2^31), or nothing.
std::optional<std::int32_t> read_id(const nlohmann::json& json);

}  // namespace whence::detail
