#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace whence::detail {

/// Throws DataError naming the first byte that is not UTF-8.
void check_utf8(std::string_view text);
bool is_utf8(std::string_view text);
/// With U+FFFD for every longest run of bytes that begins no character.
std::string repair_utf8(std::string_view text);

// The text of these is UTF-8, and `at` is where a character begins.
char32_t next_character(std::string_view text, std::size_t& at);
std::size_t character_begin(std::string_view text, std::size_t at);  // of the character that has byte `at`
std::size_t character_end(std::string_view text, std::size_t at);
void append(std::string& text, char32_t character);
std::size_t encoded_size(char32_t character);

// Unicode properties, each as the library that `tokenizers` asks for it knows them: some are of older Unicode versions,
// where a character assigned later has none.
bool is_space(char32_t character);            // White_Space
bool is_numeric(char32_t character);          // category N
bool is_word(char32_t character);             // \w of Rust's regex
bool is_punctuation(char32_t character);      // ASCII's symbols, and category P of Unicode 8
bool is_other(char32_t character);            // category C, less unassigned, of Unicode 8
bool is_nonspacing_mark(char32_t character);  // category Mn of Unicode 8
bool is_mark(char32_t character);             // category M of Unicode 9

/// Appends the lower case, which is more than one character for U+0130 alone.
void append_lower(std::u32string& text, char32_t character);

// Normalization of Unicode 9.
enum class Decomposition { kCanonical, kCompatible };
void append_decomposition(std::u32string& text, char32_t character, Decomposition kind);
int combining_class(char32_t character);
char32_t compose(char32_t first, char32_t second);  // 0 where there is no such character
/// Whether NFC leaves any text of such characters as it is.
bool is_composed(char32_t character);

}  // namespace whence::detail
