#pragma once
#include <boost/program_options.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "whence/core/progress.h"
#include "whence/stages/pipeline.h"

namespace whence::cli {

/// A command line that does not fit: exit status 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Exit statuses: interface.md, "Exit status".
enum ExitStatus { kDone = 0, kUserError = 1, kUsage = 2, kBug = 3, kStrict = 4 };

/// The flags and positional arguments of one command. Flags common to all commands are always there.
class CommandLine {
 public:
  /// `usage` is what stands behind the command's name: "PIPELINE --stage NAME [--top K]".
  CommandLine(std::string command, std::string usage, std::string summary);

  /// `options.add(...)` as in Boost.Program_options.
  boost::program_options::options_description_easy_init add() { return own_.add_options(); }
  /// The next positional argument.
  void positional(const std::string& name, const std::string& help, bool required = true);

  /// One positional argument or more, after any others.
  void positionals(const std::string& name, const std::string& help);

  /// read() and ready().
  bool parse(const std::vector<std::string>& arguments);
  using Wanted = std::function<bool(const std::string& option)>;
  /// Takes arguments; an option that was taken before stays as it is. Those of an earlier run, of which `wanted` says
  /// which options are, may hold options of other commands and positional arguments, which are left out. Throws
  /// UsageError with the nearest known flag.
  void read(const std::vector<std::string>& arguments, const Wanted& wanted = {});
  /// After read(): false when only the help was asked for, and printed. Throws UsageError where an argument is missing.
  /// Applies --threads and --memory-limit.
  bool ready();

  bool has(const std::string& name) const { return values_.count(name) != 0 && !values_[name].empty(); }
  template <class T>
  T get(const std::string& name) const {
    return values_[name].as<T>();
  }
  std::string text(const std::string& name) const { return get<std::string>(name); }
  /// A whole number. Throws UsageError below `least`.
  std::int64_t whole(const std::string& name, std::int64_t least) const;
  /// Whether the flag stands on the command line, rather than having its default.
  bool given(const std::string& name) const { return has(name) && !values_[name].defaulted(); }
  /// Notes those of `names` that are given: they play no part here, for `why`.
  void note_unused(const std::vector<std::string>& names, const std::string& why) const;
  /// Throws UsageError when the flag was not given.
  std::string required(const std::string& name) const;
  bool flag(const std::string& name) const { return get<bool>(name); }

  RunOptions run_options() const;
  /// What run.json holds, for --from to read: the arguments as given, and those that --from brought in its place.
  const std::vector<std::string>& arguments() const { return arguments_; }
  const std::string& command() const { return command_; }
  std::string help() const;

 private:
  std::string command_, usage_, summary_;
  boost::program_options::options_description own_, common_;
  boost::program_options::positional_options_description positions_;
  std::vector<std::pair<std::string, bool>> positional_names_;
  boost::program_options::variables_map values_;
  std::vector<std::string> arguments_;
};

/// Throws UsageError with the known names.
at::ScalarType parse_dtype(const std::string& name);

/// A progress callback for standard error: a bar with rate and time left on a terminal, plain lines elsewhere, nothing
/// when quiet. In every case it throws Interrupted once SIGINT or SIGTERM has come.
Progress terminal_progress(bool quiet);
/// What work reported last, "solve finetune"; empty where none has. Quiet work too.
std::string progress_phase();
/// Ends the bar's line, so that other output begins on its own.
void end_progress();
void install_signal_handlers();
/// The signal that came, or 0.
int received_signal();

/// Prints `whence: warning: …` on standard error unless told before.
void warn(const std::string& message);
/// The same as `whence: note: …`: what was assumed, where nothing need be wrong.
void note(const std::string& message);

/// The program, with what main() is given: the exit status, where it returns at all.
int run(int count, char** values);

/// Each is a subcommand: arguments without the program's and the command's name; returns the exit status.
int init(const std::vector<std::string>& arguments);
int train(const std::vector<std::string>& arguments);
int rank(const std::vector<std::string>& arguments);
int score(const std::vector<std::string>& arguments);
int evaluate(const std::vector<std::string>& arguments);
int icl(const std::vector<std::string>& arguments);
int kernel(const std::vector<std::string>& arguments);
int report(const std::vector<std::string>& arguments);
int merge(const std::vector<std::string>& arguments);
int inspect(const std::vector<std::string>& arguments);
int methods(const std::vector<std::string>& arguments);

}  // namespace whence::cli
