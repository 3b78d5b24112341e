#include "support/tool_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wordexp.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "../tools/cli.h"
#include "support/near.h"

namespace whence::test {
namespace {

int to_server = -1;
pid_t server = -1;

void redirect(int stream, const char* file, int flags) {
  const int opened = ::open(file, flags, 0666);
  if (opened < 0 || ::dup2(opened, stream) < 0 || ::close(opened) != 0) {
    std::perror(file);
    std::_Exit(126);
  }
}

[[noreturn]] void run_here(const char* folder, const char* arguments) {
  if (::chdir(folder) != 0) {
    std::perror(folder);
    std::_Exit(126);
  }
  redirect(STDIN_FILENO, "/dev/null", O_RDONLY);
  redirect(STDOUT_FILENO, "out.txt", O_WRONLY | O_CREAT | O_TRUNC);
  redirect(STDERR_FILENO, "err.txt", O_WRONLY | O_CREAT | O_TRUNC);
  wordexp_t words{};
  words.we_offs = 1;
  if (::wordexp(arguments, &words, WRDE_NOCMD | WRDE_UNDEF | WRDE_DOOFFS) != 0) {
    std::fprintf(stderr, "tests: these arguments need a shell: %s\n", arguments);
    std::_Exit(126);
  }
  std::string name = "whence";
  words.we_wordv[0] = name.data();
  const int status = cli::run(static_cast<int>(words.we_wordc) + 1, words.we_wordv);
#ifdef __SANITIZE_ADDRESS__
  __lsan_do_leak_check();
#endif
  std::fflush(nullptr);
  std::_Exit(status);
}

/// Answers each command, a folder and arguments with a 0 between them, with how its process ended, until the tests end.
[[noreturn]] void serve(int socket) {
  std::string command(1 << 16, '\0');
  for (;;) {
    const auto size = ::recv(socket, command.data(), command.size() - 1, 0);
    if (size <= 0) {
      std::_Exit(0);
    }
    command[static_cast<std::size_t>(size)] = '\0';
    int status = 0;
    const auto child = ::fork();
    if (child == 0) {
      ::close(socket);
      run_here(command.c_str(), command.c_str() + command.find('\0') + 1);
    }
    if (child < 0 || ::waitpid(child, &status, 0) != child || ::send(socket, &status, sizeof status, 0) < 0) {
      std::_Exit(1);
    }
  }
}

}  // namespace

ToolServer::ToolServer() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return;  // run_tool() tells
  }
  server = ::fork();
  if (server == 0) {
    ::close(ends[0]);
    serve(ends[1]);
  }
  ::close(ends[1]);
  to_server = ends[0];
}

ToolServer::~ToolServer() {
  ::close(to_server);
  ::waitpid(server, nullptr, 0);
}

int run_tool(const std::filesystem::path& folder, const std::string& arguments) {
  const auto command = folder.string() + '\0' + arguments;
  int status = 0;
  REQUIRE(::send(to_server, command.data(), command.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(command.size()));
  REQUIRE(::recv(to_server, &status, sizeof status, 0) == sizeof status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace whence::test
