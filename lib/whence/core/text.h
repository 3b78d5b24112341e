#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace whence {

/// `bytes` without a byte order mark. Throws DataError, naming the file, the line and the byte, and how to convert it,
/// unless they are UTF-8 text: for UTF-16, Latin-1, a NUL byte, or a format that is known by its first bytes (gzip,
/// zip, parquet, …).
std::string_view utf8_text(std::string_view bytes, const std::filesystem::path& path);

/// Bytes of the character at text[i], by RFC 3629; 0 where there is none.
std::size_t utf8_character_size(std::string_view text, std::size_t i);

/// The whole of a text file (.gz too), checked so.
std::string read_utf8(const std::filesystem::path& path);

}  // namespace whence
