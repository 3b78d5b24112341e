#include "whence/core/detail/part.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>

#include "whence/core/error.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kEnding = ".whence-part";
constexpr std::size_t kBuffer = 1 << 16;

/// The folder that holds `path`, as open() takes it.
fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// Flushes a file or folder; what the file system cannot flush it need not.
int flush(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const int code = descriptor < 0 || ::fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : errno;
  if (descriptor >= 0) {
    ::close(descriptor);
  }
  return code;
}

}  // namespace

void fail_system(const char* verb, const fs::path& path, int code) {
  throw DataError(fmt::format("cannot {} {}: {}", verb, path.string(), std::strerror(code)));
}

fs::path resolve_links(const fs::path& path) {
  constexpr int kMost = 40;  // as the system follows
  auto out = path;
  std::error_code code;
  for (int k = 0; fs::is_symlink(fs::symlink_status(out, code)); ++k) {
    const auto next = fs::read_symlink(out, code);
    if (code || k == kMost) {
      fail_system("write", path, code ? code.value() : ELOOP);
    }
    out = out.parent_path() / next;
  }
  return out;
}

Locking lock_in_place(int descriptor, const fs::path& path) {
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return Locking::kOthers;
  }
  struct stat held {
  }, there{};
  const bool same = ::fstat(descriptor, &held) == 0 && ::stat(path.c_str(), &there) == 0 &&
                    held.st_ino == there.st_ino && held.st_dev == there.st_dev;
  return same ? Locking::kMine : Locking::kGone;
}

Part::Part(const fs::path& place, Kind kind, mode_t mode) : shown_(place), place_(resolve_links(place)), kind_(kind) {
  struct stat there {};
  if (::stat(place_.c_str(), &there) == 0 &&
      (kind == Kind::kFile ? !S_ISREG(there.st_mode) : !S_ISDIR(there.st_mode))) {
    if (kind == Kind::kFile && !S_ISDIR(there.st_mode)) {
      throw DataError(fmt::format("cannot write {}: not a regular file", shown_.string()));
    }
    fail_system("write", shown_, kind == Kind::kFile ? EISDIR : ENOTDIR);
  }
  if (place_.filename().empty()) {
    fail_system("write", shown_, ENOENT);
  }
  clear_stale_parts(folder_of(place_));
  static std::atomic<std::uint64_t> number{0};
  constexpr std::size_t kLongest = 200;  // with what is added, below the 255 bytes that file systems take
  do {
    const auto name = place_.filename().string().substr(0, kLongest);
    path_ = folder_of(place_) / fmt::format(".{}.{}-{}{}", name, ::getpid(), number++, kEnding);
  } while (!make(mode));
}

/// False where the name is another's: a dead process's, or one's of another container.
bool Part::make(mode_t mode) {
  if (kind_ == Kind::kFile) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  } else if (::mkdir(path_.c_str(), mode) == 0) {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  if (descriptor_ < 0) {
    if (errno == EEXIST) {
      return false;
    }
    fail_system("write", shown_, errno);
  }
  if (lock_in_place(descriptor_, path_) == Locking::kMine) {  // else another process took it for a dead one's
    return true;
  }
  ::close(descriptor_);
  descriptor_ = -1;
  return false;
}

Part::~Part() {
  if (!path_.empty()) {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

void Part::write(const char* data, std::size_t bytes) {
  while (bytes > 0) {
    const auto written = ::write(descriptor_, data, bytes);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      fail_system("write", shown_, written < 0 ? errno : EIO);
    }
    data += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void Part::sync() const {
  int code = ::fsync(descriptor_) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : errno;
  if (kind_ == Kind::kFolder) {
    for (const auto& entry : fs::directory_iterator(path_)) {
      code = code != 0 || !entry.is_regular_file() ? code : flush(entry.path());
    }
  }
  if (code != 0) {
    fail_system("write", shown_, code);
  }
}

/// As far as the system lets this user: the owner and the group, then the mode.
void Part::take_over_permissions() const {
  struct stat there {
  }, mine{};
  if (::stat(place_.c_str(), &there) != 0 || ::fstat(descriptor_, &mine) != 0) {
    return;
  }
  const auto keep = [&](uid_t user, gid_t group) { return ::fchown(descriptor_, user, group) == 0; };
  const bool grouped = there.st_gid == mine.st_gid || keep(static_cast<uid_t>(-1), there.st_gid);
  if (there.st_uid != mine.st_uid) {
    static_cast<void>(keep(there.st_uid, static_cast<gid_t>(-1)));
  }
  const mode_t shared = S_IRWXU | S_IRWXO | (grouped ? S_IRWXG : 0);  // what was the group's is not for another
  static_cast<void>(::fchmod(descriptor_, there.st_mode & shared) == 0);
}

void Part::publish() {
  take_over_permissions();
  sync();
  if (kind_ == Kind::kFolder && fs::exists(place_)) {
    exchange_folder();
  } else if (::rename(path_.c_str(), place_.c_str()) != 0) {
    fail_system("write", shown_, errno);
  } else {
    path_.clear();
  }
  flush(folder_of(place_));  // the name too; where it cannot be, the file is there all the same
}

/// The old folder takes the part's name, and goes with the object.
void Part::exchange_folder() {
  if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, place_.c_str(), RENAME_EXCHANGE) == 0) {
    return;
  }
  if (errno != EINVAL && errno != ENOSYS && errno != EXDEV) {
    fail_system("write", shown_, errno);
  }
  const fs::path aside = path_.string() + kEnding.data();  // a file system that knows no exchange
  if (::rename(place_.c_str(), aside.c_str()) != 0) {
    fail_system("write", shown_, errno);
  }
  if (::rename(path_.c_str(), place_.c_str()) != 0) {
    const int code = errno;
    static_cast<void>(::rename(aside.c_str(), place_.c_str()) == 0);
    fail_system("write", shown_, code);
  }
  path_ = aside;
}

PartBuffer::PartBuffer(Part& part) : part_(part), buffer_(kBuffer) {
  setp(buffer_.data(), buffer_.data() + buffer_.size());
}

int PartBuffer::sync() {
  const auto bytes = static_cast<std::size_t>(pptr() - pbase());
  setp(buffer_.data(), buffer_.data() + buffer_.size());
  part_.write(buffer_.data(), bytes);
  return 0;
}

PartBuffer::int_type PartBuffer::overflow(int_type character) {
  sync();
  if (!traits_type::eq_int_type(character, traits_type::eof())) {
    sputc(traits_type::to_char_type(character));
  }
  return traits_type::not_eof(character);
}

std::streamsize PartBuffer::xsputn(const char* data, std::streamsize bytes) {
  if (bytes > epptr() - pptr()) {
    sync();
  }
  if (bytes > epptr() - pptr()) {  // larger than the buffer
    part_.write(data, static_cast<std::size_t>(bytes));
  } else if (bytes > 0) {  // memcpy takes no null pointer, which data of no bytes may be
    std::memcpy(pptr(), data, static_cast<std::size_t>(bytes));
    pbump(static_cast<int>(bytes));
  }
  return bytes;
}

void clear_stale_parts(const fs::path& folder) {
  static std::mutex mutex;
  static std::set<fs::path> looked;
  std::error_code ignored;
  {
    const std::lock_guard lock(mutex);
    if (!looked.insert(fs::absolute(folder, ignored)).second) {
      return;
    }
  }
  for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    const auto name = entry->path().filename().string();
    if (!name.starts_with('.') || !name.ends_with(kEnding)) {
      continue;
    }
    const int part = ::open(entry->path().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (part < 0) {
      continue;
    }
    if (::flock(part, LOCK_EX | LOCK_NB) == 0) {
      std::error_code undeletable;
      fs::remove_all(entry->path(), undeletable);
    }
    ::close(part);
  }
}

}  // namespace whence::detail
