#pragma once
#include <fmt/format.h>

#include <concepts>
#include <cstdio>
#include <string>
#include <string_view>

#include "whence/core/printable.h"

namespace whence::cli {

/// Text that whence itself put together, of parts that are printable: with colours, or of several lines.
struct Ready {
  std::string text;
};

template <class T>
decltype(auto) shown(const T& value) {
  if constexpr (std::same_as<T, Ready>) {
    return std::string_view(value.text);
  } else if constexpr (std::convertible_to<const T&, std::string_view>) {
    return printable(value);
  } else {
    return (value);
  }
}

/// The one way to standard output: fmt::print, with every text among the arguments made printable(), since it may have
/// stood in a file or be somebody's name. What must not be is marked Ready.
template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  const auto print = [&](const auto&... ready) { fmt::vprint(stdout, format, fmt::make_format_args(ready...)); };
  print(shown(args)...);
}

/// The one way to standard error of what is no warning: lost where that is closed or full, as nothing rests on it.
template <class... Args>
void remark(fmt::format_string<Args...> format, Args&&... args) {
  const auto print = [&](const auto&... ready) {
    const auto text = fmt::vformat(format, fmt::make_format_args(ready...));
    std::fwrite(text.data(), 1, text.size(), stderr);
  };
  print(shown(args)...);
}

}  // namespace whence::cli

template <>
struct fmt::formatter<whence::cli::Ready> : fmt::formatter<std::string_view> {
  auto format(const whence::cli::Ready& ready, fmt::format_context& context) const {
    return fmt::formatter<std::string_view>::format(ready.text, context);
  }
};
