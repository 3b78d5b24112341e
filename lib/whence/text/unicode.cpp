#include "whence/text/detail/unicode.h"

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>
#include <unicode/utf8.h>

#include <array>

#include "whence/core/error.h"

#pragma GCC diagnostic ignored "-Wconversion"  // what ICU's macros expand to narrows

namespace whence::detail {
namespace {

UChar32 code(char32_t character) { return static_cast<UChar32>(character); }

bool in_category(char32_t character, std::uint32_t mask) { return (U_GET_GC_MASK(code(character)) & mask) != 0; }

/// Whether the character was assigned in this version of Unicode or before.
bool assigned_in(char32_t character, int version) {
  UVersionInfo age;
  u_charAge(code(character), age);
  return age[0] < version || (age[0] == version && age[1] == 0);
}

const UNormalizer2* normalizer(Decomposition kind) {
  UErrorCode status = U_ZERO_ERROR;
  return kind == Decomposition::kCanonical ? unorm2_getNFCInstance(&status) : unorm2_getNFKCInstance(&status);
}

/// Where the first byte that is no UTF-8 lies; the size when all are.
std::size_t first_invalid(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto begin = at;
    UChar32 character = 0;
    U8_NEXT(text.data(), at, text.size(), character);
    if (character < 0) {
      return begin;
    }
  }
  return text.size();
}

}  // namespace

bool is_utf8(std::string_view text) { return first_invalid(text) == text.size(); }

void check_utf8(std::string_view text) {
  if (const auto at = first_invalid(text); at < text.size()) {
    throw DataError(fmt::format("byte {} (0x{:02x}) is not UTF-8", at, static_cast<unsigned char>(text[at])));
  }
}

std::string repair_utf8(std::string_view text) {
  std::string repaired;
  std::size_t at = 0;
  while (at < text.size()) {
    UChar32 character = 0;
    U8_NEXT_OR_FFFD(text.data(), at, text.size(), character);
    append(repaired, static_cast<char32_t>(character));
  }
  return repaired;
}

char32_t next_character(std::string_view text, std::size_t& at) {
  UChar32 character = 0;
  U8_NEXT_UNSAFE(text.data(), at, character);
  return static_cast<char32_t>(character);
}

std::size_t character_begin(std::string_view text, std::size_t at) {
  while (U8_IS_TRAIL(text[at])) {
    --at;
  }
  return at;
}

std::size_t character_end(std::string_view text, std::size_t at) {
  do {
    ++at;
  } while (at < text.size() && U8_IS_TRAIL(text[at]));
  return at;
}

void append(std::string& text, char32_t character) {
  std::array<char, U8_MAX_LENGTH> bytes{};
  std::size_t size = 0;
  U8_APPEND_UNSAFE(bytes.data(), size, character);
  text.append(bytes.data(), size);
}

std::size_t encoded_size(char32_t character) { return U8_LENGTH(character); }

bool is_space(char32_t character) { return u_isUWhiteSpace(code(character)); }

bool is_numeric(char32_t character) { return in_category(character, U_GC_N_MASK); }

bool is_word(char32_t character) {
  return in_category(character, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(code(character), UCHAR_ALPHABETIC) ||
         u_hasBinaryProperty(code(character), UCHAR_JOIN_CONTROL);
}

bool is_punctuation(char32_t character) {
  if (character < 0x80) {
    return character > U' ' && character < 0x7f && !u_isalnum(code(character));
  }
  if (character == 0x166d || character == 0x111c9) {
    return true;  // a symbol since Unicode 12, a mark since 11
  }
  return in_category(character, U_GC_P_MASK) && assigned_in(character, 8);
}

bool is_other(char32_t character) {
  return in_category(character, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK) && assigned_in(character, 8);
}

bool is_nonspacing_mark(char32_t character) {
  if (character == 0x1734) {
    return true;  // spacing since Unicode 14
  }
  return character != 0x1885 && character != 0x1886 && character != 0xa9bd && character != 0x111c9 &&
         in_category(character, U_GC_MN_MASK) && assigned_in(character, 8);
}

bool is_mark(char32_t character) {
  if (character == 0x1cf2 || character == 0x1cf3) {
    return true;  // letters since Unicode 12
  }
  return character != 0x111c9 && in_category(character, U_GC_M_MASK) && assigned_in(character, 9);
}

void append_lower(std::u32string& text, char32_t character) {
  text.push_back(static_cast<char32_t>(u_tolower(code(character))));
  if (character == 0x130) {
    text.push_back(0x307);
  }
}

void append_decomposition(std::u32string& text, char32_t character, Decomposition kind) {
  if (character >= 0x80 && assigned_in(character, 9)) {
    std::array<UChar, 32> units{};  // the longest is U+FDFA's, of 18
    UErrorCode status = U_ZERO_ERROR;
    const auto size = unorm2_getDecomposition(normalizer(kind), code(character), units.data(), units.size(), &status);
    if (size >= 0) {
      for (int at = 0; at < size;) {
        UChar32 part = 0;
        U16_NEXT_UNSAFE(units.data(), at, part);
        text.push_back(static_cast<char32_t>(part));
      }
      return;
    }
  }
  text.push_back(character);
}

int combining_class(char32_t character) {
  return character < 0x300 || !assigned_in(character, 9) ? 0 : u_getCombiningClass(code(character));
}

char32_t compose(char32_t first, char32_t second) {
  const auto composed = unorm2_composePair(normalizer(Decomposition::kCanonical), code(first), code(second));
  return composed < 0 || !assigned_in(static_cast<char32_t>(composed), 9) ? U'\0' : static_cast<char32_t>(composed);
}

bool is_composed(char32_t character) {
  return character < 0x300 || (u_getIntPropertyValue(code(character), UCHAR_NFC_QUICK_CHECK) == UNORM_YES &&
                               u_getCombiningClass(code(character)) == 0);
}

}  // namespace whence::detail
