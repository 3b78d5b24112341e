#include "whence/text/detail/component.h"

#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/text/detail/unicode.h"

namespace whence::detail {

Component::Component(const nlohmann::json& json, std::string file, std::string way)
    : json_(&json), file_(std::move(file)), way_(std::move(way)) {
  if (!json.is_object()) {
    fail("expected an object");
  }
}

bool Component::has(const char* key) const {
  const auto found = json_->find(key);
  return found != json_->end() && !found->is_null();
}

const nlohmann::json& Component::value(const char* key) const {
  const auto found = json_->find(key);
  if (found == json_->end()) {
    fail(fmt::format("no key \"{}\"", key));
  }
  return *found;
}

Component Component::object(const char* key) const {
  return {value(key), file_, way_.empty() ? key : fmt::format("{}.{}", way_, key)};
}

std::vector<Component> Component::objects(const char* key) const {
  const auto& list = value(key);
  if (!list.is_array()) {
    fail(fmt::format("key \"{}\": expected a list", key));
  }
  std::vector<Component> components;
  for (const auto& item : list) {
    components.emplace_back(item, file_,
                            fmt::format("{}{}{}[{}]", way_, way_.empty() ? "" : ".", key, components.size()));
  }
  return components;
}

std::string Component::text(const char* key) const {
  const auto& found = value(key);
  if (!found.is_string()) {
    fail(fmt::format("key \"{}\": expected a text", key));
  }
  return found.get<std::string>();
}

std::string Component::text_or(const char* key, std::string_view otherwise) const {
  return has(key) ? text(key) : std::string(otherwise);
}

char32_t Component::character(const char* key) const {
  const auto given = text(key);
  std::size_t at = 0;
  const auto character = given.empty() ? U'\0' : next_character(given, at);
  if (at == 0 || at != given.size()) {
    fail(fmt::format("key \"{}\" = \"{}\", expected one character", key, given));
  }
  return character;
}

bool Component::flag_or(const char* key, bool otherwise) const {
  if (!has(key)) {
    return otherwise;
  }
  if (!value(key).is_boolean()) {
    fail(fmt::format("key \"{}\": expected true or false", key));
  }
  return value(key).get<bool>();
}

std::int64_t Component::count(const char* key) const {
  const auto number = read_id(value(key));
  if (!number) {
    fail(fmt::format("key \"{}\" = {}, expected an integer in [0, 2^31)", key, brief(value(key))));
  }
  return *number;
}

void Component::fail(const std::string& what) const {
  throw DataError(fmt::format("{}: {}{}{}", file_, way_, way_.empty() ? "" : ": ", what));
}

std::optional<std::int32_t> read_id(const nlohmann::json& json) {
  if (!json.is_number_unsigned() || json.get<std::uint64_t>() > 0x7fffffff) {
    return std::nullopt;
  }
  return json.get<std::int32_t>();
}

}  // namespace whence::detail
