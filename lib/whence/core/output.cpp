#include "whence/core/output.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <string>

#include "whence/core/detail/part.h"
#include "whence/core/error.h"

namespace whence {
namespace fs = std::filesystem;
using detail::fail_system;
using detail::Part;

namespace {

constexpr mode_t kEverybody = 0777, kOwner = 0700;  // of folders, narrowed by the umask

/// "process 12 (started …)", as the lock file says.
std::string writer_of(int lock) {
  std::array<char, 128> text{};
  const auto size = ::pread(lock, text.data(), text.size(), 0);
  std::string line(text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  line = line.substr(0, line.find('\n'));
  const bool told = line.starts_with("process ") && line.ends_with(')') &&
                    std::all_of(line.begin(), line.end(), [](char c) { return c >= ' ' && c <= '~'; });
  return told ? line : "another process";
}

/// Links to one file have one lock.
fs::path lock_beside(const fs::path& output) {
  const auto place = fs::absolute(detail::resolve_links(output));
  return place.parent_path() / fmt::format(".{}.lock", place.filename().string());
}

}  // namespace

class OutputLock::Held {
 public:
  Held(const fs::path& output, fs::path lock) : path_(std::move(lock)) {
    while (!claim(output)) {
    }
    const auto text = fmt::format("process {} (started {:%F %T} UTC)\n", ::getpid(), fmt::gmtime(std::time(nullptr)));
    static_cast<void>(::ftruncate(descriptor_, 0) == 0 &&
                      ::pwrite(descriptor_, text.data(), text.size(), 0) > 0);  // a full disk only leaves it unsaid
  }
  ~Held() {
    ::unlink(path_.c_str());
    ::close(descriptor_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  /// False where the one who held the file took it away meanwhile.
  bool claim(const fs::path& output) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (descriptor_ < 0) {
      fail_system("write", output, errno);
    }
    const auto locking = detail::lock_in_place(descriptor_, path_);
    if (locking == detail::Locking::kMine) {
      return true;
    }
    if (locking == detail::Locking::kOthers) {
      const auto writer = writer_of(descriptor_);
      ::close(descriptor_);
      throw InvalidArgument(
          fmt::format("{} is being written by {}: wait for it, or name another place", output.string(), writer));
    }
    ::close(descriptor_);
    return false;
  }

  fs::path path_;
  int descriptor_ = -1;
};

OutputLock::OutputLock(const fs::path& output, const fs::path& lock) : held_(std::make_shared<Held>(output, lock)) {
  detail::clear_stale_parts(lock.parent_path());
}

OutputLock OutputLock::beside(const fs::path& output) { return {output, lock_beside(output)}; }

void OutputLock::clear_beside(const fs::path& output) {
  const auto lock = lock_beside(output);
  const int descriptor = ::open(lock.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) {
    return;
  }
  if (detail::lock_in_place(descriptor, lock) == detail::Locking::kMine) {
    ::unlink(lock.c_str());
  }
  ::close(descriptor);
  detail::clear_stale_parts(lock.parent_path());
}

OutputLock OutputLock::in(const fs::path& folder) { return {folder, fs::absolute(folder) / ".lock"}; }

std::string OutputLock::writer_in(const fs::path& folder) {
  const auto lock = fs::absolute(folder) / ".lock";
  const int descriptor = ::open(lock.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) {
    return {};
  }
  auto writer =
      detail::lock_in_place(descriptor, lock) == detail::Locking::kOthers ? writer_of(descriptor) : std::string();
  ::close(descriptor);
  return writer.starts_with(fmt::format("process {} ", ::getpid())) ? std::string() : writer;
}

class TemporaryFolder::Held {
 public:
  static fs::path place() {
    std::error_code code;
    const auto folder = fs::temp_directory_path(code);
    if (code) {
      const char* named = std::getenv("TMPDIR");
      throw DataError(fmt::format("TMPDIR = {}, expected a folder that is there and can be written to",
                                  named == nullptr ? "/tmp" : named));
    }
    return folder / "whence";
  }
  Part part{place(), Part::Kind::kFolder, kOwner};
};

TemporaryFolder::TemporaryFolder() : held_(std::make_unique<Held>()) {}
TemporaryFolder::~TemporaryFolder() = default;
const fs::path& TemporaryFolder::path() const { return held_->part.path(); }

void make_folder(const fs::path& folder) {
  std::error_code code;
  if (!folder.empty() && !fs::create_directories(folder, code) && !code && !fs::is_directory(folder, code) && !code) {
    code = std::make_error_code(std::errc::not_a_directory);
  }
  if (code) {
    fail_system("make the folder", folder, code.value());
  }
}

void write_folder_atomically(const fs::path& folder, const std::function<void(const fs::path& part)>& fill) {
  Part part(folder, Part::Kind::kFolder, kEverybody);
  try {
    fill(part.path());
    if (fs::exists(folder)) {
      for (const auto& entry : fs::directory_iterator(folder)) {
        if (const auto kept = part.path() / entry.path().filename(); !fs::exists(fs::symlink_status(kept))) {
          fs::copy(entry.path(), kept, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
        }
      }
    }
    part.publish();
  } catch (const fs::filesystem_error& error) {
    fail_system("write", folder, error.code().value());
  } catch (const DataError& error) {  // of a file in the part, which nobody knows by that name
    std::string text = error.what();
    if (const auto at = text.find(part.path().string()); at != text.npos) {
      text.replace(at, part.path().string().size(), folder.string());
    }
    throw DataError(text);
  }
}

}  // namespace whence
