#include "whence/data/detail/keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "whence/core/error.h"
#include "whence/core/json.h"

namespace whence::detail {
namespace {
using nlohmann::json;

bool read_value(const json& given, std::int64_t& value) {
  if (!given.is_number_integer() || (given.is_number_unsigned() && given.get<std::uint64_t>() > INT64_MAX)) {
    return false;
  }
  value = given.get<std::int64_t>();
  return true;
}
bool read_value(const json& given, double& value) {
  value = given.is_number() ? given.get<double>() : 0;
  return given.is_number();
}
bool read_value(const json& given, bool& value) {
  value = given.is_boolean() && given.get<bool>();
  return given.is_boolean();
}
bool read_value(const json& given, std::string& value) {
  if (std::int64_t number = 0; read_value(given, number)) {
    value = std::to_string(number);
    return true;
  }
  value = given.is_string() ? given.get<std::string>() : "";
  return !value.empty();
}
bool read_value(const json& given, std::vector<std::string>& value) {
  return given.is_array() && !given.empty() && std::all_of(given.begin(), given.end(), [&](const json& item) {
           return read_value(item, value.emplace_back()) || item == "";
         });
}

bool read_value(const json& given, std::vector<double>& value) {
  if (given.is_number()) {
    value = {given.get<double>()};
    return true;
  }
  return given.is_array() && !given.empty() && std::all_of(given.begin(), given.end(), [&](const json& item) {
           return read_value(item, value.emplace_back());
         });
}

bool within_bound(std::int64_t value, const Takes& takes) { return value >= takes.low && value <= takes.high; }
bool within_bound(double value, const Takes& takes) {
  return value >= static_cast<double>(takes.low) && value <= static_cast<double>(takes.high);
}
template <class T>
bool within_bound(const T&, const Takes&) {
  return true;
}

template <class T>
void read_any(const json& table, std::string_view format, std::string_view name, const Takes& takes, T& value) {
  const auto given = table.find(name);
  if (given == table.end()) {
    if (takes.required) {
      throw InvalidArgument(fmt::format("{}: key {} is missing, expected {}", format, name, takes.text));
    }
    return;
  }
  if (!read_value(*given, value) || !within_bound(value, takes)) {
    throw InvalidArgument(fmt::format("{}: key {} = {}, expected {}", format, name, json_text(*given), takes.text));
  }
}

}  // namespace

std::string key_text(double value) { return fmt::format("{}", value); }
std::string key_text(std::int64_t value) { return std::to_string(value); }
std::string key_text(bool value) { return value ? "true" : "false"; }
std::string key_text(const std::string& value) { return value; }
std::string key_text(const std::vector<std::string>& value) { return fmt::format("[{}]", fmt::join(value, ", ")); }
std::string key_text(const std::vector<double>& value) { return fmt::format("[{}]", fmt::join(value, ", ")); }

void read_key(const json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::int64_t& value) {
  read_any(table, format, name, takes, value);
}
void read_key(const json& table, std::string_view format, std::string_view name, const Takes& takes, double& value) {
  read_any(table, format, name, takes, value);
}
void read_key(const json& table, std::string_view format, std::string_view name, const Takes& takes, bool& value) {
  read_any(table, format, name, takes, value);
}
void read_key(const json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::string& value) {
  read_any(table, format, name, takes, value);
}
void read_key(const json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::vector<std::string>& value) {
  read_any(table, format, name, takes, value);
}
void read_key(const json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::vector<double>& value) {
  read_any(table, format, name, takes, value);
}

}  // namespace whence::detail
