#include "whence/core/printable.h"

#include <fmt/format.h>

#include "whence/core/text.h"

namespace whence {
namespace {

/// Of the character of `size` bytes at text[i].
char32_t code_point(std::string_view text, std::size_t i, std::size_t size) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[i + k]); };
  auto point = static_cast<char32_t>(size == 1 ? byte(0) : byte(0) & (0x7F >> size));
  for (std::size_t k = 1; k < size; ++k) {
    point = point << 6 | (byte(k) & 0x3F);
  }
  return point;
}

bool commands(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x061C || c == 0x200E || c == 0x200F ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF || (c >= 0xE0000 && c <= 0xE007F);
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto size = utf8_character_size(text, i);
    const auto c = size == 0 ? static_cast<char32_t>(static_cast<unsigned char>(text[i])) : code_point(text, i, size);
    if (size != 0 && !commands(c)) {
      out += text.substr(i, size);
    } else if (c == '\n' || c == '\t' || c == '\r') {
      out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r";
    } else {
      out += size <= 1 ? fmt::format("\\x{:02x}", static_cast<std::uint32_t>(c))
                       : fmt::format("\\u{{{:x}}}", static_cast<std::uint32_t>(c));
    }
    i += size == 0 ? 1 : size;
  }
  return out;
}

}  // namespace whence
