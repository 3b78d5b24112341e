#include "whence/text/detail/byte_letters.h"

#include "whence/text/detail/unicode.h"

namespace whence::detail {
namespace {

constexpr std::array<char32_t, 256> make_letters() {
  std::array<char32_t, 256> letters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    letters[byte] = printable ? byte : next++;
  }
  return letters;
}
constexpr auto kLetters = make_letters();

constexpr std::array<int, 0x144> make_bytes() {
  std::array<int, 0x144> bytes{};
  bytes.fill(-1);
  for (std::size_t byte = 0; byte < 256; ++byte) {
    bytes[kLetters[byte]] = static_cast<int>(byte);
  }
  return bytes;
}
constexpr auto kBytes = make_bytes();

}  // namespace

const std::array<char32_t, 256>& byte_letters() { return kLetters; }

std::string spell_bytes(std::string_view bytes) {
  std::string letters;
  for (const char byte : bytes) {
    append(letters, kLetters[static_cast<unsigned char>(byte)]);
  }
  return letters;
}

std::optional<std::string> read_letters(std::string_view letters) {
  std::string bytes;
  for (std::size_t at = 0; at < letters.size();) {
    const auto letter = next_character(letters, at);
    if (letter >= kBytes.size() || kBytes[letter] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kBytes[letter]));
  }
  return bytes;
}

}  // namespace whence::detail
