#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "whence/core/files.h"

namespace whence::detail {

/// The members of a zip file as PyTorch writes them: stored, never compressed, below one root folder. Nothing is
/// allocated by a size that the file claims: a member is a piece of the file. PKWARE, "APPNOTE.TXT", 6.3.
class Zip {
 public:
  /// Throws DataError for a file that is no zip, a member that is compressed, encrypted, there twice or not within the
  /// file, and members of more bytes in all than the file has.
  explicit Zip(const std::filesystem::path& path);

  /// Names are those below the root.
  bool contains(const std::string& name) const { return members_.count(name) > 0; }
  std::vector<std::string> names() const;
  /// Throws DataError where there is none of that name or its checksum is another. Valid as long as this.
  std::span<const std::byte> bytes(const std::string& name) const;
  std::string text(const std::string& name) const;
  /// Of the whole file.
  std::uint64_t size() const { return file_->bytes().size(); }
  const std::string& where() const { return where_; }

 private:
  struct Member {
    std::uint64_t begin = 0, size = 0;
    std::uint32_t checksum = 0;
  };

  std::string where_;
  std::shared_ptr<const FileBytes> file_;
  std::map<std::string, Member> members_;
};

}  // namespace whence::detail
