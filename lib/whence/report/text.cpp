#include "whence/report/detail/text.h"

#include <fmt/format.h>

namespace whence::detail {

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        const bool control = (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
        out += control ? std::string("\xEF\xBF\xBD") : std::string(1, c);
      }
    }
  }
  return out;
}

std::string tidy_number(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool padding = text[i] == '0' && i >= 2 && text[i - 2] == 'e';  // 1e-05
    out += text[i] == '-' ? std::string("\u2212") : std::string(padding ? 0 : 1, text[i]);
  }
  return out;
}

std::string number(double value, bool always_sign) {
  return tidy_number(always_sign ? fmt::format("{:+.3g}", value) : fmt::format("{:.3g}", value));
}

}  // namespace whence::detail
