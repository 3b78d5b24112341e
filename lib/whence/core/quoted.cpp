#include "whence/core/quoted.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

namespace whence {

std::string toml_text(std::string_view text) {
  std::ostringstream out;
  const toml::value<std::string> value{text};
  out << toml::toml_formatter{value, toml::format_flags::allow_unicode_strings};
  return out.str();
}

std::string toml_text(const std::vector<std::string>& texts) {
  std::vector<std::string> items;
  for (const auto& text : texts) {
    items.push_back(toml_text(text));
  }
  return fmt::format("[{}]", fmt::join(items, ", "));
}

std::string shell_word(std::string_view text) {
  constexpr std::string_view kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./,:=@%+-";
  const auto word = (text.starts_with('-') ? "./" : "") + std::string(text);
  if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) {
    return word;
  }
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7F; };
  const bool escaped = std::any_of(word.begin(), word.end(), is_control);
  std::string out = escaped ? "$'" : "'";
  for (const char c : word) {
    if (is_control(static_cast<unsigned char>(c))) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else if (escaped && (c == '\'' || c == '\\')) {
      out += {'\\', c};
    } else {
      out += c == '\'' ? "'\\''" : std::string(1, c);
    }
  }
  return out + "'";
}

}  // namespace whence
