#include "whence/core/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "whence/core/registry.h"

namespace whence::detail {
namespace {

template <class Number>
bool read_number(std::string_view text, Number& value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::string option_text(double value) { return fmt::format("{}", value); }
std::string option_text(std::int64_t value) { return std::to_string(value); }
std::string option_text(bool value) { return value ? "true" : "false"; }
std::string option_text(const std::string& value) { return value; }
std::string option_text(const std::vector<std::int64_t>& value) { return fmt::format("{}", fmt::join(value, "/")); }

bool read_option(std::string_view text, double& value) { return read_number(text, value); }
bool read_option(std::string_view text, std::int64_t& value) { return read_number(text, value); }
bool read_option(std::string_view text, bool& value) {
  value = text == "true";
  return text == "true" || text == "false";
}
bool read_option(std::string_view text, std::string& value) {
  value = text;
  return true;  // whether nothing is a word is the bound's to say
}
bool read_option(std::string_view text, std::vector<std::int64_t>& value) {
  value.clear();
  while (!text.empty()) {
    const auto item = text.substr(0, text.find('/'));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    if (!read_number(item, value.emplace_back())) {
      return false;
    }
  }
  return !value.empty();
}

bool within(double value, const Bound& bound) { return value >= bound.low && value <= bound.high; }
bool within(std::int64_t value, const Bound& bound) { return within(static_cast<double>(value), bound); }
bool within(bool, const Bound&) { return true; }
bool within(const std::vector<std::int64_t>& value, const Bound& bound) {
  return std::all_of(value.begin(), value.end(), [&](std::int64_t entry) { return within(entry, bound); });
}
bool within(const std::string& value, const OneOf& bound) {
  const auto padded = fmt::format("|{}|", bound.words);
  return value.find('|') == value.npos && padded.find(fmt::format("|{}|", value)) != padded.npos;
}

void check_new_name(std::string_view noun, std::string_view name, const std::vector<std::string>& taken) {
  const auto in_names = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  if (name.empty() || !std::all_of(name.begin(), name.end(), in_names)) {
    throw InvalidArgument(fmt::format("{} \"{}\": expected a name of small letters, digits and hyphens", noun, name));
  }
  if (std::find(taken.begin(), taken.end(), name) != taken.end()) {
    throw InvalidArgument(
        fmt::format("{} \"{}\": there is one already, expected none of {}", noun, name, fmt::join(taken, ", ")));
  }
}

std::string method_name(std::string_view identifier) {
  std::string name(identifier);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

void throw_out_of_bound(std::string_view owner, std::string_view name, const std::string& value,
                        const std::string& bound) {
  throw InvalidArgument(fmt::format("{}: option {} = {}, expected {}", owner, name, value, bound));
}
void throw_unreadable(std::string_view owner, std::string_view name, std::string_view value, const std::string& bound) {
  throw InvalidArgument(fmt::format("{}: option {}: cannot read \"{}\", expected {}", owner, name, value, bound));
}

void throw_given_twice(std::string_view owner, std::string_view name) {
  throw InvalidArgument(fmt::format("{}: option {} is given twice, expected once", owner, name));
}

}  // namespace whence::detail
