#include <c10/util/Exception.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "cli.h"
#include "memory_limit.h"
#include "say.h"
#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/core/printable.h"
#include "whence/version.h"

namespace {

using namespace whence;
using namespace whence::cli;

enum class Work { kReads, kComputes, kScores };  // the last in blocks of queries

struct Command {
  const char* name;
  int (*run)(const std::vector<std::string>&);
  Work work;
  bool kept_in_out;  ///< What is done of it, in the folder --out or --scores, and nowhere else.
  const char* summary;
};

constexpr std::array kCommands{
    Command{"init", &init, Work::kReads, false, "look at a model and data files, and write a pipeline that runs"},
    Command{"train", &train, Work::kComputes, false, "train the stages that have no checkpoint yet, in order"},
    Command{"rank", &rank, Work::kScores, true, "score, then show and save the strongest examples per query"},
    Command{"score", &score, Work::kScores, true, "the whole score matrix, for batches; resumable"},
    Command{"icl", &icl, Work::kComputes, true,
            "which demonstrations of a prompt help, which hurt, which are mislabelled?"},
    Command{"kernel", &kernel, Work::kComputes, false, "does this fine-tune behave like its kernel?"},
    Command{"evaluate", &evaluate, Work::kComputes, true, "do the scores predict what retraining does?"},
    Command{"report", &cli::report, Work::kReads, false, "one self-contained HTML page of a result directory"},
    Command{"merge", &cli::merge, Work::kComputes, false, "the model after a stage as plain weights"},
    Command{"inspect", &inspect, Work::kReads, false, "what a checkpoint, data set, pipeline or result holds"},
    Command{"methods", &cli::methods, Work::kReads, false,
            "every registered method, its options, bounds, defaults, source"},
};

std::string usage() {
  std::string text =
      "whence: which training examples, from any stage of a model's life, made it say this?\n\nUsage: whence COMMAND "
      "[ARGUMENTS]\n\nCommands:\n";
  for (const auto& command : kCommands) {
    text += fmt::format("  {:<10}{}\n", command.name, command.summary);
  }
  return text + "\n`whence COMMAND --help` tells the rest; `whence methods` is the reference manual.\n";
}

/// The one that runs; null before.
const Command* at_work = nullptr;
/// Whether it has somewhere to keep what is done of it: checkpoints, or a folder, which --from may bring.
bool keeps_work = true;

/// OpenMP's threads wait for work by spinning, which on a few cores takes the time that the work needs: 3.4 s of
/// training became 70 s on two. The policy is read when the runtime is loaded, before main(), so the program starts
/// itself again with it, once.
void wait_without_spinning(char** arguments) {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    setenv("OMP_WAIT_POLICY", "passive", 1);
    execv("/proc/self/exe", arguments);  // where this fails, all works as before, only slower
  }
}

/// Whether one of them stands there, with its value or before it.
bool has_flag(const std::vector<std::string>& arguments, std::initializer_list<std::string_view> flags) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& word) {
    return std::find(flags.begin(), flags.end(), word.substr(0, word.find('='))) != flags.end();
  });
}

int dispatch(char** values, const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    throw UsageError("a command is missing; `whence --help` lists them");
  }
  if (arguments[0] == "-h" || arguments[0] == "--help") {
    say("{}", Ready{usage()});
    return kDone;
  }
  if (arguments[0] == "--version") {
    say("whence {}\n", WHENCE_VERSION);
    return kDone;
  }
  std::vector<std::string> known;
  for (const auto& command : kCommands) {
    if (arguments[0] == command.name) {
      at_work = &command;
      keeps_work = !command.kept_in_out || has_flag(arguments, {"--out", "--scores", "--from"});
      if (command.work != Work::kReads) {
        wait_without_spinning(values);
        keep_freed_memory();
      }
      return command.run({arguments.begin() + 1, arguments.end()});
    }
    known.emplace_back(command.name);
  }
  throw UsageError(unknown_name("command", arguments[0], known));
}

int fail(const char* kind, const std::string& message, int status) {
  constexpr std::size_t kLongest = 4000;  // of a line that anybody reads; what a file holds may be in it
  end_progress();
  std::fprintf(stderr, "whence: %s: %s%s\n", kind, printable(message.substr(0, kLongest)).c_str(),
               message.size() > kLongest ? "…" : "");
  return status;
}

/// LibTorch's allocator says how much it was asked for: "you tried to allocate 8000000000 bytes".
int fail_of_memory(const std::string& message) {
  constexpr std::string_view kAsked = "tried to allocate ";
  const auto place = message.find(kAsked);
  const double bytes = place == message.npos ? 0 : std::atof(message.c_str() + place + kAsked.size());
  const auto phase = progress_phase();
  const auto limit =
      std::isinf(memory_limit()) ? std::string() : fmt::format(" within {}", readable_bytes(memory_limit()));
  const bool scores = at_work != nullptr && at_work->work == Work::kScores;
  return fail("error",
              fmt::format("out of memory{}{}{}: lower --batch-size (examples at a time){}", limit,
                          phase.empty() ? "" : fmt::format(" during {}", phase),
                          bytes >= 1e6 ? fmt::format(": {:.2g} GB were asked for at once", bytes / 1e9) : "",
                          scores ? " or --query-block (queries at a time); --plan tells what they take" : ""),
              kUserError);
}

/// A closed pipe is how a reader says that it has read enough: nothing is told, and the status is SIGPIPE's.
int fail_of_output(int code) {
  constexpr int kClosedPipe = 128 + SIGPIPE;
  return code == EPIPE
             ? kClosedPipe
             : fail("error",
                    fmt::format("cannot write standard output: {}", code == 0 ? "a write failed" : std::strerror(code)),
                    kUserError);
}

/// Tells in one line what is being thrown; the exit status that belongs to it.
int tell_exception() {
  release_reserve();
  try {
    throw;
  } catch (const Interrupted&) {
    return fail(
        "interrupted",
        keeps_work ? "what is complete stays; the same command goes on from there" : "nothing stays without --out DIR",
        128 + received_signal());
  } catch (const UsageError& error) {
    return fail("error", error.what(), kUsage);
  } catch (const Error& error) {
    return fail("error", error.what(), kUserError);
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    return is_out_of_memory(error) ? fail_of_memory(message) : fail("bug", message, kBug);
  } catch (const std::filesystem::filesystem_error& error) {  // a full disk, a folder without permission
    const auto path = error.path1().string();
    return fail("error", fmt::format("{}: {}", path.empty() ? "." : path, error.code().message()), kUserError);
  } catch (const std::system_error& error) {
    const auto code = error.code().value();
    return std::ferror(stdout) != 0           ? fail_of_output(code)
           : code == ENOMEM || code == EAGAIN ? fail_of_memory("")  // no memory for another thread
                                              : fail("bug", error.what(), kBug);
  } catch (const std::exception& error) {
    return is_out_of_memory(error) ? fail_of_memory(error.what()) : fail("bug", error.what(), kBug);
  }
}

/// What cannot be caught in main: thrown in a thread of another library's, or where none may be thrown.
[[noreturn]] void tell_and_exit() {
  std::_Exit(std::current_exception() ? tell_exception() : fail("bug", "terminated", kBug));
}

/// A stream that was closed before the program began would lend its number to the first file that is opened, into which
/// all that is printed would then go. One that nothing can be written to takes its place.
void occupy_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) < 0) {
      static_cast<void>(::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) == stream);
    }
  }
}

}  // namespace

int whence::cli::run(int count, char** values) {
  std::set_terminate(&tell_and_exit);
  keep_reserve();
  occupy_standard_streams();
  install_signal_handlers();
  int status = kDone;
  try {
    status = dispatch(values, {values + 1, values + count});
  } catch (...) {
    status = tell_exception();
  }
  errno = 0;
  const bool printed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  status = printed || (status != kDone && status != kStrict) ? status : fail_of_output(errno);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return status;  // what leaked is told where a program ends by itself
#else
  std::fflush(stderr);
  std::_Exit(status);  // LibTorch takes a tenth of a second to take back its list of operators, for nothing
#endif
}
