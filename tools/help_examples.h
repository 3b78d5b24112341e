#pragma once
#include <span>
#include <string_view>

namespace whence::cli {

/// A command line that works, and what it is for.
struct HelpExample {
  const char* line;
  const char* purpose;
};

/// What `whence COMMAND --help` shows of each command.
std::span<const HelpExample> help_examples(std::string_view command);

}  // namespace whence::cli
