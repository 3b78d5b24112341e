#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>

namespace whence {

/// The bytes of a file, read only: mapped, or inflated in memory when the name ends in .gz. Lives as long as any copy
/// of the pointer.
class FileBytes {
 public:
  virtual ~FileBytes() = default;
  virtual std::span<const std::byte> bytes() const = 0;
};

/// Throws DataError naming the file when it is missing, unreadable, a directory, a pointer that Git LFS or git-annex
/// left in place of it, or a damaged or truncated gzip stream.
std::shared_ptr<const FileBytes> open_bytes(const std::filesystem::path& path);
std::string read_text(const std::filesystem::path& path);

/// Writes a file that appears whole or not at all: `write` fills a part, flushed to disk and renamed. A link stays one,
/// permissions stay. Throws DataError with the system's reason (a full disk, a missing folder), leaving no part behind.
void write_atomically(const std::filesystem::path& path, const std::function<void(std::ostream&)>& write);
void write_text(const std::filesystem::path& path, const std::string& text);

/// SHA-256 of a file's bytes as hexadecimal, as `sha256sum` prints it.
std::string digest(const std::filesystem::path& path);
std::string digest(std::span<const std::byte> bytes);
/// The same, or kAbsent where there is no such file: of one that is looked for, and changes what is read where it
/// appears.
std::string digest_if_there(const std::filesystem::path& path);
inline constexpr const char* kAbsent = "absent";

}  // namespace whence
