#pragma once
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace whence::faults {

/// A system call that changes files: makes, writes, flushes, renames, removes one, or opens it for that. Not those on
/// standard streams and in /dev and /proc.
struct Call {
  std::string name, path;  // of two paths the first; of a descriptor's file its path
  std::size_t bytes = 0;   // to write
  bool takes_space = false;
};

enum class Kind {
  kKill,       // SIGKILL in place of call number `at`
  kHalf,       // half of what it writes, then SIGKILL; where it writes nothing, SIGKILL after the call
  kFail,       // that call alone fails with `error`
  kFull,       // it and all later ones that take space fail with ENOSPC
  kReadOnly,   // it and all later ones fail with EROFS
  kInterrupt,  // SIGINT before that call
};

struct Fault {
  Kind kind;
  std::size_t at = 0;     // counted from 0
  int error = 0;          // for kFail
  std::string file = "";  // where there is one: at the first call on a file whose path has this, whichever that is
};

/// What a run of a command is given beside its words.
struct Way {
  std::filesystem::path folder{};          // where it runs
  std::vector<Fault> faults{};             //
  std::size_t memory = 0;                  // bytes of address space; 0: no limit
  std::size_t file_size = 0;               // bytes of a file; 0: no limit
  double seconds = 20;                     // of a processor; then it is killed, and counts as hung
  double kill_after = 0;                   // seconds; 0: never
  std::function<void()> meanwhile{};       // called before call number `meanwhile_at`, while the command is held there
  std::size_t meanwhile_at = 0;            //
  bool unprivileged = false;               // root may not write where permissions forbid it
  std::vector<std::string> environment{};  // NAME=VALUE, beside this process's
};

struct Outcome {
  int status = -1;  // -1: ended by `signal`
  int signal = 0;
  bool hung = false;
  double seconds = 0, processor_seconds = 0;
  std::size_t peak = 0;  // bytes of memory
  std::string out, err;
  std::vector<Call> calls;
};

/// Runs the command with its system calls traced (ptrace, and a seccomp filter so that all others cost nothing). Sees
/// calls from anywhere in the process, also under sanitizers. In a process one at a time, but for one in `meanwhile`.
Outcome run(const std::vector<std::string>& command, const Way& way);

/// Whether this machine lets a process trace another.
bool can_trace();

}  // namespace whence::faults
