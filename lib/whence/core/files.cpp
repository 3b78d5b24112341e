#include "whence/core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <string_view>
#include <vector>

#include "whence/core/detail/part.h"
#include "whence/core/digest.h"
#include "whence/core/error.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  ~Descriptor() {
    if (value_ >= 0) {
      ::close(value_);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

class MappedFile : public FileBytes {
 public:
  explicit MappedFile(const fs::path& path) {
    const Descriptor file(path, O_RDONLY);
    struct stat status {};
    if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
      detail::fail_system("read", path, errno);
    }
    if (!S_ISREG(status.st_mode)) {
      throw DataError(fmt::format("cannot read {}: not a regular file", path.string()));
    }
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ == 0) {
      return;
    }
    data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data_ == MAP_FAILED) {
      detail::fail_system("map", path, errno);
    }
  }
  ~MappedFile() override {
    if (size_ != 0) {
      ::munmap(data_, size_);
    }
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const override { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Where large files are kept elsewhere, a clone without them has a few lines of text in their place.
void check_no_pointer(const fs::path& path, std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 512));
  if (text.starts_with("version https://git-lfs.github.com/spec/")) {
    const auto size = text.find("\nsize ");
    const auto count = size == text.npos ? "" : text.substr(size + 6, text.find('\n', size + 6) - size - 6);
    throw DataError(
        fmt::format("{}: a Git LFS pointer to {} bytes, not the file itself: run `git lfs pull` in its folder, or "
                    "download it again",
                    path.string(), count.empty() ? "unknown many" : count));
  }
  if (text.starts_with("/annex/objects/")) {
    throw DataError(
        fmt::format("{}: a git-annex pointer, not the file itself: run `git annex get` on it", path.string()));
  }
}

class InflatedFile : public FileBytes {
 public:
  explicit InflatedFile(const fs::path& path) {
    const MappedFile packed(path);  // names a missing file before zlib does
    check_no_pointer(path, packed.bytes());
    const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
    if (!file) {
      detail::fail_system("read", path, errno);
    }
    gzbuffer(file.get(), 1 << 17);
    std::size_t size = 0;
    bytes_.resize(std::max<std::size_t>(packed.bytes().size() * 3, 1 << 16));
    while (true) {
      if (size == bytes_.size()) {
        bytes_.resize(bytes_.size() * 2);
      }
      const auto room = static_cast<unsigned>(std::min<std::size_t>(bytes_.size() - size, 1 << 30));
      const int got = gzread(file.get(), bytes_.data() + size, room);
      if (got <= 0) {
        int code = Z_OK;
        const char* reason = gzerror(file.get(), &code);
        if (got < 0 || (code != Z_OK && code != Z_STREAM_END)) {
          throw DataError(fmt::format("{}: damaged or truncated gzip stream after {} bytes ({})", path.string(), size,
                                      reason != nullptr && *reason != '\0' ? reason : "unknown"));
        }
        break;
      }
      size += static_cast<std::size_t>(got);
    }
    bytes_.resize(size);
  }
  std::span<const std::byte> bytes() const override { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace

std::shared_ptr<const FileBytes> open_bytes(const fs::path& path) {
  if (path.extension() == ".gz") {
    return std::make_shared<InflatedFile>(path);
  }
  auto file = std::make_shared<MappedFile>(path);
  check_no_pointer(path, file->bytes());
  return file;
}

std::string read_text(const fs::path& path) {
  const auto file = open_bytes(path);
  const auto bytes = file->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_atomically(const fs::path& path, const std::function<void(std::ostream&)>& write) {
  constexpr mode_t kEverybody = 0666;  // narrowed by the umask
  detail::Part part(path, detail::Part::Kind::kFile, kEverybody);
  detail::PartBuffer buffer(part);
  std::ostream out(&buffer);
  out.exceptions(std::ios::badbit);  // what the buffer throws goes through
  write(out);
  out.flush();
  part.publish();
}

void write_text(const fs::path& path, const std::string& text) {
  write_atomically(path, [&](std::ostream& out) { out << text; });
}

std::string digest(std::span<const std::byte> bytes) { return Digest().bytes(bytes).text(); }

std::string digest(const fs::path& path) { return digest(MappedFile(path).bytes()); }

}  // namespace whence
