#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>
#include <string_view>

#include "cli.h"
#include "whence/core/error.h"
#include "whence/core/memory.h"

namespace {

using namespace whence;
using namespace whence::cli;

struct Command {
  const char* name;
  int (*run)(const std::vector<std::string>&);
  bool computes;
  const char* summary;
};

constexpr std::array kCommands{
    Command{"init", &init, false, "look at a model and data files, and write a pipeline that runs"},
    Command{"train", &train, true, "train the stages that have no checkpoint yet, in order"},
    Command{"rank", &rank, true, "score, then show and save the strongest examples per query"},
    Command{"score", &score, true, "the whole score matrix, for batches; resumable"},
    Command{"icl", &icl, true, "which demonstrations of a prompt help, which hurt, which are mislabelled?"},
    Command{"evaluate", &evaluate, true, "do the scores predict what retraining does?"},
    Command{"report", &cli::report, false, "one self-contained HTML page of a result directory"},
    Command{"inspect", &inspect, false, "what a checkpoint, data set, pipeline or result holds"},
    Command{"methods", &cli::methods, false, "every registered method, its options, bounds, defaults, source"},
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

/// OpenMP's threads wait for work by spinning, which on a few cores takes the time that the work needs: 3.4 s of
/// training became 70 s on two. The policy is read when the runtime is loaded, before main(), so the program starts
/// itself again with it, once.
void wait_without_spinning(char** arguments) {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    setenv("OMP_WAIT_POLICY", "passive", 1);
    execv("/proc/self/exe", arguments);  // where this fails, all works as before, only slower
  }
}

int dispatch(char** values, const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    throw UsageError("a command is missing; `whence --help` lists them");
  }
  if (arguments[0] == "-h" || arguments[0] == "--help") {
    fmt::print("{}", usage());
    return kDone;
  }
  if (arguments[0] == "--version") {
    fmt::print("whence {}\n", WHENCE_VERSION);
    return kDone;
  }
  std::vector<std::string> known;
  for (const auto& command : kCommands) {
    if (arguments[0] == command.name) {
      if (command.computes) {
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
  end_progress();
  std::fprintf(stderr, "whence: %s: %s\n", kind, message.c_str());
  return status;
}

/// LibTorch's allocator says how much it was asked for: "you tried to allocate 8000000000 bytes".
int fail_of_memory(const std::string& message) {
  constexpr std::string_view kAsked = "tried to allocate ";
  const auto place = message.find(kAsked);
  const double bytes = place == message.npos ? 0 : std::atof(message.c_str() + place + kAsked.size());
  return fail("error",
              fmt::format("out of memory{}: lower --batch-size (examples at a time) or --query-block (queries at a "
                          "time); rank and score tell with --plan what they take",
                          bytes > 0 ? fmt::format(": {:.2g} GB were asked for at once", bytes / 1e9) : ""),
              kUserError);
}

}  // namespace

int main(int count, char** values) {
  install_signal_handlers();
  try {
    return dispatch(values, {values + 1, values + count});
  } catch (const Interrupted&) {
    return fail("interrupted", "what is complete stays; the same command goes on from there", 128 + received_signal());
  } catch (const UsageError& error) {
    return fail("error", error.what(), kUsage);
  } catch (const Error& error) {
    return fail("error", error.what(), kUserError);
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    const bool memory = dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
                        message.find("can't allocate memory") != message.npos ||
                        message.find("not enough memory") != message.npos;
    return memory ? fail_of_memory(message) : fail("bug", message, kBug);
  } catch (const std::bad_alloc&) {
    return fail_of_memory("");
  } catch (const std::filesystem::filesystem_error& error) {  // a full disk, a folder without permission
    return fail("error", fmt::format("{}: {}", error.path1().string(), error.code().message()), kUserError);
  } catch (const std::exception& error) {
    return fail("bug", error.what(), kBug);
  }
}
