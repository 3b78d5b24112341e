#pragma once
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "whence/core/error.h"

namespace whence {

/// The values a numeric option may take, and how that reads in a message.
struct Bound {
  double low;
  double high;
  std::string_view text;
};
inline constexpr Bound kAny{-1e300, 1e300, "a finite number"};
inline constexpr Bound kAtLeastZero{0, 1e300, ">= 0"};
inline constexpr Bound kAtLeastOne{1, 1e300, ">= 1"};
inline constexpr Bound kPositive{1e-300, 1e300, "> 0"};
inline constexpr Bound kUnitInterval{0, 1, "in [0, 1]"};

/// The words a text option may take: "tanh|relu|gelu".
struct OneOf {
  std::string_view words;
};
/// A text option that may be anything without a comma: a path.
struct AnyText {};

/// One option as `whence methods`, run.json and the spec string show it.
struct OptionInfo {
  std::string name, value, bound, help;
};

namespace detail {

std::string option_text(double value);
std::string option_text(std::int64_t value);
std::string option_text(bool value);
std::string option_text(const std::string& value);
std::string option_text(const std::vector<std::int64_t>& value);

/// Each reads the whole of `text` or returns false.
bool read_option(std::string_view text, double& value);
bool read_option(std::string_view text, std::int64_t& value);
bool read_option(std::string_view text, bool& value);
bool read_option(std::string_view text, std::string& value);
bool read_option(std::string_view text, std::vector<std::int64_t>& value);

bool within(double value, const Bound& bound);
bool within(std::int64_t value, const Bound& bound);
bool within(bool value, const Bound& bound);
bool within(const std::vector<std::int64_t>& value, const Bound& bound);
bool within(const std::string& value, const OneOf& bound);
inline bool within(const std::string&, const AnyText&) { return true; }

inline std::string bound_text(const Bound& bound) { return std::string(bound.text); }
inline std::string bound_text(const OneOf& bound) { return std::string(bound.words); }
inline std::string bound_text(const AnyText&) { return "a text"; }

/// What a value that cannot be read should have been: the bound, or of a type that says more the type.
template <class Value, class AnyBound>
std::string expected_text(const Value&, const AnyBound& bound) {
  if constexpr (std::is_same_v<Value, bool>) {
    return "true or false";
  } else {
    return bound_text(bound);
  }
}

[[noreturn]] void throw_out_of_bound(std::string_view owner, std::string_view name, const std::string& value,
                                     const std::string& bound);
[[noreturn]] void throw_unreadable(std::string_view owner, std::string_view name, std::string_view value,
                                   const std::string& bound);
[[noreturn]] void throw_given_twice(std::string_view owner, std::string_view name);

}  // namespace detail

/// Every options struct declares its fields once:
///   template <class Self, class Field> static void fields(Self& self, Field&& field);
/// and each call is field(name, value, bound, help), the value being a double, std::int64_t, bool, std::string or a
/// list of std::int64_t (written 64/32). Checking, parsing, printing and the reference manual are visitors over that
/// one declaration, so none of them can drift from another.
template <class Options>
void validate(const Options& options, std::string_view owner) {
  Options::fields(options, [&](std::string_view name, const auto& value, const auto& bound, std::string_view) {
    if (!detail::within(value, bound)) {
      detail::throw_out_of_bound(owner, name, detail::option_text(value), detail::bound_text(bound));
    }
  });
}

/// Reads "name=value,name=value"; the name alone of one that is true or false means true. Throws InvalidArgument on an
/// unknown name, one given twice, a malformed value or one out of its bound.
template <class Options>
Options parse(std::string_view text, std::string_view owner) {
  Options options;
  std::vector<std::string_view> before;
  while (!text.empty()) {
    const auto item = text.substr(0, text.find(','));
    text.remove_prefix(item.size() + (item.size() < text.size() ? 1 : 0));
    const auto equals = item.find('=');
    const auto key = item.substr(0, equals);
    const auto given = equals == item.npos ? std::string_view{} : item.substr(equals + 1);
    bool known = false;
    std::vector<std::string> names;
    Options::fields(options, [&](std::string_view name, auto& value, const auto& bound, std::string_view) {
      names.emplace_back(name);
      if (name != key) {
        return;
      }
      known = true;
      if constexpr (std::is_same_v<std::decay_t<decltype(value)>, bool>) {
        if (equals == item.npos) {  // a flag's name alone
          value = true;
          return;
        }
      }
      if (!detail::read_option(given, value)) {
        detail::throw_unreadable(owner, name, given, detail::expected_text(value, bound));
      }
    });
    if (!known) {
      throw InvalidArgument(std::string(owner) + ": " + unknown_name("option", key, names));
    }
    if (std::find(before.begin(), before.end(), key) != before.end()) {
      detail::throw_given_twice(owner, key);
    }
    before.push_back(key);
  }
  validate(options, owner);
  return options;
}

/// What every option is, with the values `options` holds.
template <class Options>
std::vector<OptionInfo> describe(const Options& options) {
  std::vector<OptionInfo> infos;
  Options::fields(options, [&](std::string_view name, const auto& value, const auto& bound, std::string_view help) {
    infos.push_back(
        {std::string(name), detail::option_text(value), detail::expected_text(value, bound), std::string(help)});
  });
  return infos;
}

/// For methods that have no options.
struct NoOptions {
  template <class Self, class Field>
  static void fields(Self&, Field&&) {}
};

}  // namespace whence
