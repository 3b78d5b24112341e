#include "whence/core/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "whence/core/error.h"
#include "whence/core/files.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// A format that is no text, by how its files begin.
struct Beginning {
  std::string_view bytes, what;
};
constexpr Beginning kBeginnings[] = {
    {"\x1f\x8b", "is compressed by gzip: give it a name that ends in .gz"},
    {"PK\x03\x04", "is a zip archive or an Excel workbook: unpack it, or save it as csv"},
    {"PAR1", "is a parquet file: pandas.read_parquet(…).to_csv(…, index=False) writes it as csv"},
    {"\x93NUMPY", "is a numpy array: safetensors.numpy.save_file({\"inputs\": …, \"targets\": …}, …) writes it"},
    {"\x89HDF", "is an HDF5 file: export it as csv"},
    {"BZh", "is compressed by bzip2: unpack it"},
    {"\xfd"
     "7zXZ",
     "is compressed by xz: unpack it"},
    {"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it"},
};

/// Whether a file begins with what no text holds: a csv's first column may be named PAR1.
bool begins_binary(std::string_view bytes) {
  constexpr std::size_t kLooked = 64;
  for (std::size_t i = 0; i < std::min(bytes.size(), kLooked);) {
    const auto size = utf8_character_size(bytes, i);
    if (size == 0 ||
        (static_cast<unsigned char>(bytes[i]) < 0x20 && std::string_view("\t\n\r\f").find(bytes[i]) == bytes.npos)) {
      return true;
    }
    i += size;
  }
  return false;
}

[[noreturn]] void refuse(const fs::path& path, std::string_view text, std::size_t place, const std::string& what) {
  const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(place), '\n') + 1;
  throw DataError(fmt::format("{}: line {}, byte {} of the file: {}", path.string(), line, place + 1, what));
}

}  // namespace

std::size_t utf8_character_size(std::string_view text, std::size_t i) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(i + k < text.size() ? text[i + k] : 0); };
  const auto follows = [&](std::size_t k, unsigned char low = 0x80, unsigned char high = 0xBF) {
    return byte(k) >= low && byte(k) <= high;
  };
  const auto first = byte(0);
  if (first < 0x80) {
    return 1;
  }
  if (first >= 0xC2 && first <= 0xDF) {
    return follows(1) ? 2 : 0;
  }
  if (first >= 0xE0 && first <= 0xEF) {  // neither overlong nor a surrogate
    return follows(1, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF) && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    return follows(1, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

std::string_view utf8_text(std::string_view bytes, const fs::path& path) {
  const auto to_utf8 = [&](const char* from) {
    return fmt::format("iconv -f {} -t UTF-8 {} > NEW", from, path.filename().string());
  };
  if (bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF")) {
    throw DataError(fmt::format("{}: the text is UTF-16, expected UTF-8: {}", path.string(), to_utf8("UTF-16")));
  }
  for (const auto& [beginning, what] : kBeginnings) {
    if (bytes.starts_with(beginning) && begins_binary(bytes)) {
      throw DataError(fmt::format("{}: {}", path.string(), what));
    }
  }
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  for (std::size_t i = 0; i < bytes.size();) {
    if (const auto byte = static_cast<unsigned char>(bytes[i]); byte > 0 && byte < 0x80) {  // by far the most
      ++i;
      continue;
    }
    const auto size = utf8_character_size(bytes, i);
    if (size == 0) {
      const auto byte = static_cast<unsigned>(static_cast<unsigned char>(bytes[i]));
      refuse(path, bytes, i,
             fmt::format("0x{:02X} is not UTF-8; if the text is Latin-1 or of Windows: {}", byte,
                         to_utf8("WINDOWS-1252")));
    }
    if (bytes[i] == '\0') {
      refuse(path, bytes, i, fmt::format("a zero byte, which no text holds; if it is UTF-16: {}", to_utf8("UTF-16LE")));
    }
    i += size;
  }
  return bytes.substr(bytes.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0);
}

std::string read_utf8(const fs::path& path) {
  const auto file = open_bytes(path);
  const auto bytes = file->bytes();
  return std::string(utf8_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path));
}

}  // namespace whence
