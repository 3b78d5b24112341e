#pragma once
#include <sys/types.h>

#include <filesystem>
#include <streambuf>
#include <string>
#include <vector>

namespace whence::detail {

/// Throws DataError: "cannot VERB PATH: REASON", the reason by errno's code.
[[noreturn]] void fail_system(const char* verb, const std::filesystem::path& path, int code);

/// Where writing to `path` ends: what a symbolic link names, so that the link stays. Throws DataError for a loop.
std::filesystem::path resolve_links(const std::filesystem::path& path);

enum class Locking { kMine, kOthers, kGone };

/// Locks the open file or folder at `path` by flock(), which ends with the process. kOthers: another process holds it;
/// kGone: the one who held it took it away before it was locked. Where there are no such locks it counts as locked.
Locking lock_in_place(int descriptor, const std::filesystem::path& path);

/// What is to become the file or folder `place`, beside it as `.NAME.PROCESS-NUMBER.whence-part` until publish(). No
/// other process or thread has that name. A lock on it, which ends with the process, tells it from what a dead one
/// left; that goes when the next part is made in the same folder. Every member throws DataError, naming `place`, with
/// the system's reason.
class Part {
 public:
  enum class Kind { kFile, kFolder };
  /// Throws too where `place` is there and is not of that kind. `mode` is narrowed by the umask.
  Part(const std::filesystem::path& place, Kind kind, mode_t mode);
  /// Removes what was not published.
  ~Part();
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  const std::filesystem::path& place() const { return shown_; }
  const std::filesystem::path& path() const { return path_; }
  void write(const char* data, std::size_t bytes);
  /// Flushes to disk, and takes the place in one step, with the permissions of what was there.
  void publish();

 private:
  bool make(mode_t mode);
  void sync() const;
  void take_over_permissions() const;
  void exchange_folder();

  std::filesystem::path shown_, place_, path_;
  Kind kind_;
  int descriptor_ = -1;
};

/// A stream's way into a part. A write that fails throws at once.
class PartBuffer : public std::streambuf {
 public:
  explicit PartBuffer(Part& part);

 protected:
  int_type overflow(int_type character) override;
  std::streamsize xsputn(const char* data, std::streamsize bytes) override;
  int sync() override;

 private:
  Part& part_;
  std::vector<char> buffer_;
};

/// Removes the parts in `folder` whose process is gone. Looks once a process.
void clear_stale_parts(const std::filesystem::path& folder);

}  // namespace whence::detail
