#pragma once
#include <filesystem>
#include <functional>
#include <memory>

namespace whence {

/// Keeps other processes from writing one output while the object lives: a lock file of a line that says who writes,
/// locked by flock(), so that it ends with the process however that ends. Where a file system has no such locks,
/// nothing is kept. Reading needs none: files appear whole.
class OutputLock {
 public:
  /// For a file or folder that appears by one rename: the lock is `.NAME.lock` beside it. Throws InvalidArgument where
  /// another process writes it, saying which, and DataError where nothing can be written there: take it before work.
  static OutputLock beside(const std::filesystem::path& output);
  /// For a folder that is there and is filled file by file: the lock is `.lock` in it.
  static OutputLock in(const std::filesystem::path& folder);
  /// The other process that holds in() of a folder, "process 12 (started …)"; empty where none does, such as where it
  /// was killed.
  static std::string writer_in(const std::filesystem::path& folder);
  /// Removes what a killed process left of the lock of beside(), where no run will take it again: that of an output
  /// that is finished.
  static void clear_beside(const std::filesystem::path& output);
  /// Nothing locked.
  OutputLock() = default;

 private:
  class Held;
  OutputLock(const std::filesystem::path& output, const std::filesystem::path& lock);
  std::shared_ptr<Held> held_;
};

/// A folder of this process's own under TMPDIR, gone with the object or, after a kill, when the next one is made.
/// Throws DataError where there is no such folder or it cannot be written to.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const;

 private:
  class Held;
  std::unique_ptr<Held> held_;
};

/// The folder and those above it, where they are missing; nothing for an empty path. Throws DataError with the system's
/// reason.
void make_folder(const std::filesystem::path& folder);

/// As write_atomically() a file: `fill` writes into a folder that then takes the place of `folder` in one step. What
/// else lay in `folder` stays there.
void write_folder_atomically(const std::filesystem::path& folder,
                             const std::function<void(const std::filesystem::path& part)>& fill);

}  // namespace whence
