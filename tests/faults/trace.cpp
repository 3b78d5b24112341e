#include "faults/trace.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#ifndef __x86_64__
#error "the registers of a traced process are read and set for x86-64 alone"
#endif

namespace whence::faults {
namespace {

using Registers = user_regs_struct;
using Clock = std::chrono::steady_clock;

constexpr double kClock = 10;  // a busy machine takes this many seconds for one of a processor's

/// The argument that names the file, from 0.
enum class Named { kPath0, kPath1, kDescriptor };

struct Traced {
  long number;
  const char* name;
  Named named;
  int flags = -1;  // the argument with the flags of open(); calls without any of kChanging are let pass
  bool takes_space = false;
  bool writes = false;  // the third argument is how much
};

constexpr int kChanging = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
constexpr std::array kTraced{
    Traced{SYS_open, "open", Named::kPath0, 1, true},
    Traced{SYS_openat, "openat", Named::kPath1, 2, true},
    Traced{SYS_creat, "creat", Named::kPath0, -1, true},
    Traced{SYS_write, "write", Named::kDescriptor, -1, true, true},
    Traced{SYS_pwrite64, "pwrite", Named::kDescriptor, -1, true, true},
    Traced{SYS_writev, "writev", Named::kDescriptor, -1, true, true},
    Traced{SYS_pwritev, "pwritev", Named::kDescriptor, -1, true, true},
    Traced{SYS_sendfile, "sendfile", Named::kDescriptor, -1, true},
    Traced{SYS_copy_file_range, "copy_file_range", Named::kDescriptor, -1, true},
    Traced{SYS_fallocate, "fallocate", Named::kDescriptor, -1, true},
    Traced{SYS_ftruncate, "ftruncate", Named::kDescriptor},
    Traced{SYS_truncate, "truncate", Named::kPath0},
    Traced{SYS_fsync, "fsync", Named::kDescriptor},
    Traced{SYS_fdatasync, "fdatasync", Named::kDescriptor},
    Traced{SYS_mkdir, "mkdir", Named::kPath0, -1, true},
    Traced{SYS_mkdirat, "mkdirat", Named::kPath1, -1, true},
    Traced{SYS_rename, "rename", Named::kPath0},
    Traced{SYS_renameat, "renameat", Named::kPath1},
    Traced{SYS_renameat2, "renameat2", Named::kPath1},
    Traced{SYS_link, "link", Named::kPath0},
    Traced{SYS_linkat, "linkat", Named::kPath1},
    Traced{SYS_symlink, "symlink", Named::kPath0},
    Traced{SYS_symlinkat, "symlinkat", Named::kPath0},
    Traced{SYS_unlink, "unlink", Named::kPath0},
    Traced{SYS_unlinkat, "unlinkat", Named::kPath1},
    Traced{SYS_rmdir, "rmdir", Named::kPath0},
    Traced{SYS_chmod, "chmod", Named::kPath0},
    Traced{SYS_fchmod, "fchmod", Named::kDescriptor},
    Traced{SYS_fchmodat, "fchmodat", Named::kPath1},
    Traced{SYS_chown, "chown", Named::kPath0},
    Traced{SYS_fchown, "fchown", Named::kDescriptor},
    Traced{SYS_utimensat, "utimensat", Named::kPath1},
};

/// Stops at the calls of kTraced, and lets all others pass.
std::vector<sock_filter> filter() {
  const auto statement = [](int code, std::uint32_t k) {
    return sock_filter{static_cast<std::uint16_t>(code), 0, 0, k};
  };
  const auto jump = [](int code, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
    return sock_filter{static_cast<std::uint16_t>(BPF_JMP | BPF_K | code), yes, no, k};
  };
  constexpr int kLoad = BPF_LD | BPF_W | BPF_ABS, kReturn = BPF_RET | BPF_K;
  std::vector<sock_filter> out{statement(kLoad, offsetof(seccomp_data, nr))};
  for (const auto& call : kTraced) {
    const auto number = static_cast<std::uint32_t>(call.number);
    if (call.flags < 0) {
      out.push_back(jump(BPF_JEQ, number, 0, 1));
      out.push_back(statement(kReturn, SECCOMP_RET_TRACE));
      continue;
    }
    const auto place = offsetof(seccomp_data, args) + sizeof(std::uint64_t) * static_cast<std::size_t>(call.flags);
    out.push_back(jump(BPF_JEQ, number, 0, 4));
    out.push_back(statement(kLoad, static_cast<std::uint32_t>(place)));
    out.push_back(jump(BPF_JSET, kChanging, 0, 1));
    out.push_back(statement(kReturn, SECCOMP_RET_TRACE));
    out.push_back(statement(kReturn, SECCOMP_RET_ALLOW));
  }
  out.push_back(statement(kReturn, SECCOMP_RET_ALLOW));
  return out;
}

unsigned long long argument(const Registers& r, int number) {
  const std::array<unsigned long long, 6> all{r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9};
  return all.at(static_cast<std::size_t>(number));
}

std::string text_at(pid_t process, unsigned long long address) {
  std::string out;
  std::array<char, 64> piece{};
  while (out.size() < 4096) {
    const auto wanted = piece.size() - address % piece.size();  // never across a page that may not be there
    iovec here{piece.data(), wanted}, there{reinterpret_cast<void*>(address), wanted};
    const auto read = ::process_vm_readv(process, &here, 1, &there, 1, 0);
    if (read <= 0) {
      break;
    }
    const auto end = std::find(piece.begin(), piece.begin() + read, '\0');
    out.append(piece.begin(), end);
    if (end != piece.begin() + read) {
      break;
    }
    address += static_cast<unsigned long long>(read);
  }
  return out;
}

std::string path_of(pid_t process, const Traced& call, const Registers& registers) {
  if (call.named != Named::kDescriptor) {
    return text_at(process, argument(registers, call.named == Named::kPath0 ? 0 : 1));
  }
  std::error_code ignored;
  const auto link = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(argument(registers, 0));
  return std::filesystem::read_symlink(link, ignored).string();
}

/// Whether it concerns a file or folder: no standard stream, pipe or device.
bool counts(pid_t process, const Traced& call, const Registers& registers, const std::string& path) {
  if (call.named != Named::kDescriptor) {
    return !path.starts_with("/dev/null") && !path.starts_with("/dev/tty") && !path.starts_with("/proc/");
  }
  const auto descriptor = argument(registers, 0);
  const auto link = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(descriptor);
  struct stat there {};
  return descriptor > 2 && ::stat(link.c_str(), &there) == 0 && (S_ISREG(there.st_mode) || S_ISDIR(there.st_mode));
}

pid_t traced_process = 0;
volatile sig_atomic_t alarm_rang = 0;

void kill_traced(int) {
  alarm_rang = 1;
  ::kill(traced_process, SIGKILL);
}

void set_alarm(double seconds) {
  const auto whole = static_cast<time_t>(seconds);
  const itimerval value{{0, 0}, {whole, static_cast<suseconds_t>((seconds - static_cast<double>(whole)) * 1e6)}};
  ::setitimer(ITIMER_REAL, &value, nullptr);
}

/// Takes what a command prints, through a pipe: a limit on the size of files would cut a file.
class Printed {
 public:
  Printed() {
    if (::pipe2(ends_.data(), O_CLOEXEC) != 0) {
      throw std::runtime_error("no pipe");
    }
    reader_ = std::thread([this] {
      std::array<char, 1 << 16> piece{};
      for (ssize_t read = 0; (read = ::read(ends_[0], piece.data(), piece.size())) > 0;) {
        text_.append(piece.data(), static_cast<std::size_t>(read));
      }
    });
  }
  ~Printed() { text(); }
  Printed(const Printed&) = delete;
  Printed& operator=(const Printed&) = delete;

  int end() const { return ends_[1]; }
  /// After the command has ended.
  const std::string& text() {
    if (reader_.joinable()) {
      ::close(ends_[1]);
      reader_.join();
      ::close(ends_[0]);
    }
    return text_;
  }

 private:
  std::array<int, 2> ends_{};
  std::string text_;
  std::thread reader_;
};

void limit(int what, std::size_t bytes) {
  if (bytes > 0) {
    const rlimit value{bytes, bytes};
    ::setrlimit(what, &value);
  }
}

/// In the new process; does not return.
[[noreturn]] void become(const std::vector<std::string>& command, const Way& way, int out, int err) {
  std::vector<char*> words;
  for (const auto& word : command) {
    words.push_back(const_cast<char*>(word.c_str()));
  }
  words.push_back(nullptr);
  const auto rules = filter();
  const sock_fprog program{static_cast<unsigned short>(rules.size()), const_cast<sock_filter*>(rules.data())};
  for (const auto& variable : way.environment) {
    ::putenv(const_cast<char*>(variable.c_str()));
  }
  if (way.unprivileged) {  // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER go with exec
    for (const int capability : {1, 2, 3}) {
      ::prctl(PR_CAPBSET_DROP, capability);
    }
  }
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  limit(RLIMIT_AS, way.memory);
  limit(RLIMIT_FSIZE, way.file_size);
  limit(RLIMIT_CPU, static_cast<std::size_t>(std::ceil(way.seconds)));
  ::dup2(::open("/dev/null", O_RDONLY), 0);
  ::dup2(out, 1);
  ::dup2(err, 2);
  if (::chdir(way.folder.c_str()) == 0 && ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0) {
    ::raise(SIGSTOP);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) {
      ::execv(words.front(), words.data());
    }
  }
  ::_exit(127);
}

/// What becomes of one call.
struct Verdict {
  bool kill = false, kill_after = false, halve = false, interrupt = false;
  int error = 0;
};

Verdict judge(const std::vector<Fault>& faults, const Call& call, const std::vector<Call>& before) {
  Verdict out;
  const auto number = before.size();
  for (const auto& fault : faults) {
    const auto on_file = [&](const Call& some) { return some.path.find(fault.file) != std::string::npos; };
    const bool now =
        fault.file.empty() ? number == fault.at : on_file(call) && std::none_of(before.begin(), before.end(), on_file);
    const bool since = number >= fault.at;
    switch (fault.kind) {
      case Kind::kKill:
        out.kill |= now;
        break;
      case Kind::kHalf:
        out.kill_after |= now;
        out.halve |= now && call.bytes > 0;
        break;
      case Kind::kInterrupt:
        out.interrupt |= now;
        break;
      case Kind::kFail:
        out.error = now ? fault.error : out.error;
        break;
      case Kind::kFull:
        out.error = since && call.takes_space ? ENOSPC : out.error;
        break;
      case Kind::kReadOnly:
        out.error = since ? EROFS : out.error;
        break;
    }
  }
  return out;
}

/// The process has stopped before a call. Returns how it goes on.
__ptrace_request at_call(pid_t process, const Way& way, std::vector<Call>& calls) {
  Registers registers{};
  ::ptrace(PTRACE_GETREGS, process, nullptr, &registers);
  const auto traced = std::find_if(kTraced.begin(), kTraced.end(), [&](const Traced& call) {
    return call.number == static_cast<long>(registers.orig_rax);
  });
  if (traced == kTraced.end()) {
    return PTRACE_CONT;
  }
  Call call{traced->name, path_of(process, *traced, registers), traced->writes ? registers.rdx : 0,
            traced->takes_space && (traced->flags < 0 || (argument(registers, traced->flags) & O_CREAT) != 0)};
  if (!counts(process, *traced, registers, call.path)) {
    return PTRACE_CONT;
  }
  const auto verdict = judge(way.faults, call, calls);
  if (way.meanwhile && calls.size() == way.meanwhile_at) {
    const auto held = traced_process;
    way.meanwhile();
    traced_process = held;
    set_alarm(kClock * way.seconds);
  }
  calls.push_back(std::move(call));
  if (verdict.kill) {
    ::kill(traced_process, SIGKILL);
    return PTRACE_CONT;
  }
  if (verdict.interrupt) {
    ::kill(traced_process, SIGINT);
  }
  if (verdict.error != 0) {
    registers.orig_rax = static_cast<unsigned long long>(-1);  // no call at all
    registers.rax = static_cast<unsigned long long>(-verdict.error);
  } else if (verdict.halve) {
    registers.rdx /= 2;  // of vectors half of them
  }
  ::ptrace(PTRACE_SETREGS, process, nullptr, &registers);
  return verdict.kill_after ? PTRACE_SYSCALL : PTRACE_CONT;
}

}  // namespace

Outcome run(const std::vector<std::string>& command, const Way& way) {
  Outcome outcome;
  Printed out, err;
  const auto begun = Clock::now();
  const auto process = ::fork();
  if (process == 0) {
    become(command, way, out.end(), err.end());
  }
  traced_process = process;
  alarm_rang = 0;
  struct sigaction action {};
  action.sa_handler = kill_traced;
  ::sigaction(SIGALRM, &action, nullptr);
  int status = 0;
  rusage used{};
  if (::waitpid(process, &status, 0) != process || !WIFSTOPPED(status)) {
    throw std::runtime_error("no process can be traced here");
  }
  ::ptrace(PTRACE_SETOPTIONS, process, nullptr,
           PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC |
               PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
  ::ptrace(PTRACE_CONT, process, nullptr, nullptr);
  set_alarm(way.kill_after > 0 ? way.kill_after : kClock * way.seconds);
  for (;;) {
    const auto who = ::wait4(-1, &status, __WALL, &used);
    if (who < 0 && errno == EINTR) {
      continue;
    }
    if (who < 0 || (who == process && (WIFEXITED(status) || WIFSIGNALED(status)))) {
      break;
    }
    if (!WIFSTOPPED(status)) {
      continue;
    }
    __ptrace_request next = PTRACE_CONT;
    int signal = WSTOPSIG(status);
    if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_SECCOMP << 8))) {
      next = at_call(who, way, outcome.calls);
      signal = 0;
    } else if (signal == (SIGTRAP | 0x80)) {  // behind the call that was the last to be let through
      ::kill(process, SIGKILL);
      signal = 0;
    } else if (status >> 16 != 0 || signal == SIGSTOP) {  // of a new thread, or of exec
      signal = 0;
    }
    ::ptrace(next, who, nullptr, signal);
  }
  set_alarm(0);
  outcome.seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  const auto seconds_of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  outcome.processor_seconds = seconds_of(used.ru_utime) + seconds_of(used.ru_stime);
  outcome.hung = (alarm_rang != 0 && way.kill_after == 0) || outcome.processor_seconds >= way.seconds;
  outcome.peak = static_cast<std::size_t>(used.ru_maxrss) * 1024;
  outcome.out = out.text();
  outcome.err = err.text();
  return outcome;
}

bool can_trace() {
  try {
    return run({"/bin/true"}, {.folder = "/"}).status == 0;
  } catch (const std::runtime_error&) {
    return false;
  }
}

}  // namespace whence::faults
