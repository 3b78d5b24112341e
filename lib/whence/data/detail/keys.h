#pragma once
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/options.h"

namespace whence::detail {

/// What a key of a data table takes.
struct Takes {
  std::string_view text;         ///< As messages and the manual put it: "a path".
  std::string_view absent = "";  ///< What the manual shows as the default, where the value does not say it.
  bool required = false;
  std::int64_t low = 0, high = std::numeric_limits<std::int64_t>::max();  ///< Bound of a number.
};
inline constexpr Takes kRequiredPath{"a path", "required", true};

/// The keys that every format takes, besides `format`.
struct CommonKeys {
  std::vector<std::string> classes, drop_labels;
  std::vector<double> rows;
  std::int64_t skip = 0;
  std::int64_t limit = std::numeric_limits<std::int64_t>::max();
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("classes", self.classes, Takes{"a list of labels", "all"},
          "keep only these labels and number them in this order");
    field("drop-labels", self.drop_labels, Takes{"a list of labels", "none"},
          "leave examples with these labels out; \"\" is a missing one");
    field("rows", self.rows, Takes{"a row or a list of rows", "all"},
          "only these examples, by row in the source, counted from 0, in this order");
    field("skip", self.skip, Takes{">= 0"}, "leave the first so many examples out, after `classes`");
    field("limit", self.limit, Takes{">= 1", "all", false, 1}, "keep the first so many examples, after `skip`");
  }
};

std::string key_text(std::int64_t value);
std::string key_text(double value);
std::string key_text(bool value);
std::string key_text(const std::string& value);
std::string key_text(const std::vector<std::string>& value);
std::string key_text(const std::vector<double>& value);

/// Each reads table[name] into `value`, which stays as it is where the key is absent. Throws InvalidArgument when the
/// key is required and absent, or holds anything but what it takes. An integer does for a string.
void read_key(const nlohmann::json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::int64_t& value);
void read_key(const nlohmann::json& table, std::string_view format, std::string_view name, const Takes& takes,
              double& value);
void read_key(const nlohmann::json& table, std::string_view format, std::string_view name, const Takes& takes,
              bool& value);
void read_key(const nlohmann::json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::string& value);
void read_key(const nlohmann::json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::vector<std::string>& value);
void read_key(const nlohmann::json& table, std::string_view format, std::string_view name, const Takes& takes,
              std::vector<double>& value);

/// A Keys struct declares its keys once, as options do: field(name, value, Takes, help).
template <class Keys>
std::vector<OptionInfo> describe_keys() {
  std::vector<OptionInfo> infos;
  const auto describe_one = [&](std::string_view name, const auto& value, const Takes& takes, std::string_view help) {
    infos.push_back({std::string(name), takes.absent.empty() ? key_text(value) : std::string(takes.absent),
                     std::string(takes.text), std::string(help)});
  };
  const Keys keys;
  const CommonKeys common;
  Keys::fields(keys, describe_one);
  CommonKeys::fields(common, describe_one);
  return infos;
}

/// Reads the keys that `table` gives; the others keep their defaults. Keys that its format does not know are refused
/// before, by check_data_keys().
template <class Keys>
Keys read_keys(const nlohmann::json& table, std::string_view format) {
  Keys keys;
  Keys::fields(keys, [&](std::string_view name, auto& value, const Takes& takes, std::string_view) {
    read_key(table, format, name, takes, value);
  });
  return keys;
}

}  // namespace whence::detail
