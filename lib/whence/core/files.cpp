#include "whence/core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstdlib>
#include <new>
#include <string_view>

#include "whence/core/detail/part.h"
#include "whence/core/digest.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// A .gz may become so many bytes, or so many times as many as it has, whichever is more: images and tables become 2 to
/// 50 times as many, a stream of one repeated byte 1,030 times.
constexpr std::size_t kMostInflated = std::size_t{64} << 20, kMostInflation = 200;

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
    const Descriptor file(path, O_RDONLY | O_NONBLOCK);  // a pipe without a writer would wait for one
    struct stat status {};
    if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
      detail::fail_system("read", path, errno);
    }
    if (!S_ISREG(status.st_mode)) {
      throw DataError(
          fmt::format("cannot read {}: not a regular file{}", path.string(),
                      S_ISFIFO(status.st_mode) ? ", but a pipe: write it to a file first, cat PIPE > FILE" : ""));
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
    const auto packed_size = packed.bytes().size();
    const auto most = std::max(kMostInflated, kMostInflation * packed_size);
    std::size_t size = 0;
    reserve(std::max<std::size_t>(packed_size * 3, 1 << 16));
    while (true) {
      check_interruption();
      if (size == room_) {
        reserve(std::min(room_ * 2, most + 1));
      }
      const auto room = static_cast<unsigned>(std::min<std::size_t>(room_ - size, 1 << 24));
      const int got = gzread(file.get(), bytes_.get() + size, room);
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
      if (size > most) {
        throw DataError(
            fmt::format("{}: inflates to more than {} MiB, {} times its {} bytes, which data seldom does: if that is "
                        "meant, unpack it, gunzip --keep {}",
                        path.string(), most >> 20, size / packed_size, packed_size, path.filename().string()));
      }
    }
    reserve(std::max<std::size_t>(size, 1));
    size_ = size;
  }
  std::span<const std::byte> bytes() const override { return {bytes_.get(), size_}; }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  /// Grows where it lies, if it can: memory that nothing was written to costs nothing.
  void reserve(std::size_t room) {
    auto* const moved = std::realloc(bytes_.get(), room);
    if (moved == nullptr) {
      throw std::bad_alloc();
    }
    static_cast<void>(bytes_.release());
    bytes_.reset(static_cast<std::byte*>(moved));
    room_ = room;
  }

  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_ = 0, room_ = 0;
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

std::string digest_if_there(const fs::path& path) { return fs::exists(path) ? digest(path) : kAbsent; }

}  // namespace whence
