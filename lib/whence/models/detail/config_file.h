#pragma once
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "whence/core/error.h"
#include "whence/core/json.h"

namespace whence::detail {

/// config.json with messages that name the file and the key.
class ConfigFile {
 public:
  ConfigFile(std::filesystem::path path, nlohmann::json values) : path_(std::move(path)), values_(std::move(values)) {}

  const nlohmann::json& values() const { return values_; }
  bool has(const char* key) const { return values_.contains(key) && !values_[key].is_null(); }

  std::int64_t count(const char* key) const {
    if (!has(key) || !values_[key].is_number_integer() || values_[key].get<std::int64_t>() < 1 ||
        values_[key].get<std::int64_t>() > INT32_MAX) {
      fail(key, "a whole number >= 1");
    }
    return values_[key];
  }
  std::int64_t count(const char* key, std::int64_t otherwise) const { return has(key) ? count(key) : otherwise; }
  double number(const char* key, double otherwise) const { return number_in(values_, key, otherwise); }
  double number_in(const nlohmann::json& table, const char* key, double otherwise) const {
    if (!table.contains(key) || table[key].is_null()) {
      return otherwise;
    }
    if (!table[key].is_number() || !std::isfinite(table[key].get<double>())) {
      throw DataError(fmt::format("{}: {} = {}, expected a number", path_.string(), key, brief(table[key])));
    }
    return table[key];
  }
  bool flag(const char* key, bool otherwise) const {
    if (!has(key)) {
      return otherwise;
    }
    if (!values_[key].is_boolean()) {
      fail(key, "true or false");
    }
    return values_[key];
  }
  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) {
      return otherwise;
    }
    if (!values_[key].is_string()) {
      fail(key, "a text");
    }
    return values_[key];
  }
  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    throw DataError(fmt::format("{}: {} = {}, expected {}", path_.string(), key,
                                has(key) ? brief(values_[key]) : "missing", expected));
  }
  void expect(const char* key, bool holds, const std::string& expected) const {
    if (!holds) {
      fail(key, expected);
    }
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  nlohmann::json values_;
};

}  // namespace whence::detail
