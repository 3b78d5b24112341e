#pragma once
#include <filesystem>
#include <string>

namespace whence::test {

/// A process that has loaded all that the tool loads and done nothing with it, as long as the tests run. main() makes
/// it before any thread, since a fork has none of them.
class ToolServer {
 public:
  ToolServer();
  ~ToolServer();
  ToolServer(const ToolServer&) = delete;
  ToolServer& operator=(const ToolServer&) = delete;
};

/// `whence ARGUMENTS` in a folder, where its outputs go to out.txt and err.txt: in a fork of the server, which is the
/// program after LibTorch has put together its list of operators. That takes a third of a second, under sanitizers more
/// than one. The arguments are split as by a shell, without pipes or redirections. The exit status, 128 and the number
/// of a signal where one ended it.
int run_tool(const std::filesystem::path& folder, const std::string& arguments);

}  // namespace whence::test
