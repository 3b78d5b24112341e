#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <set>

#include "support/contents.h"
#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/output.h"

namespace whence::test {
namespace {

namespace fs = std::filesystem;

/// A process that runs `work`, says so, and then waits to be killed.
class Child {
 public:
  template <class Work>
  explicit Child(const Work& work) {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    id_ = ::fork();
    if (id_ == 0) {
      work([&] {
        static_cast<void>(::write(ready[1], "x", 1) == 1);
        while (true) {
          ::pause();
        }
      });
      ::_exit(1);
    }
    char said = 0;
    ::close(ready[1]);
    REQUIRE(::read(ready[0], &said, 1) == 1);
    ::close(ready[0]);
  }
  ~Child() { kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t id() const { return id_; }
  void kill() {
    if (id_ > 0) {
      ::kill(id_, SIGKILL);
      ::waitpid(id_, nullptr, 0);
      id_ = 0;
    }
  }

 private:
  pid_t id_ = 0;
};

TEST_SUITE_BEGIN("core");

TEST_CASE("output: one process writes at a time, the other says which; a kill frees the lock and what it left goes") {
  const Scratch scratch;
  for (const bool folder : {false, true}) {
    const auto output = scratch / (folder ? "result" : "a.safetensors");
    if (folder) {
      fs::create_directory(output);
    }
    const auto take = [&] { return folder ? OutputLock::in(output) : OutputLock::beside(output); };
    Child child([&](const auto& ready) {
      const auto lock = take();
      write_atomically((folder ? output / "run.json" : output), [&](std::ostream& out) {
        out << "half" << std::flush;
        ready();
      });
    });
    const auto writer = fmt::format("{} is being written by process {} (started 20", output.string(), child.id());
    CHECK_MESSAGE_HOLDS(InvalidArgument, writer, take());
    CHECK_MESSAGE_HOLDS(InvalidArgument, "UTC): wait for it, or name another place", take());
    const auto place = folder ? output : scratch.folder();
    const auto held = names_in(place);
    CHECK(held.size() == 2);  // the lock and the part
    child.kill();
    CHECK(names_in(place) == held);
    {
      const auto lock = take();
      CHECK(names_in(place) == Names{folder ? ".lock" : ".a.safetensors.lock"});
      CHECK_MESSAGE_HOLDS(InvalidArgument, fmt::format("by process {} (", ::getpid()), take());
    }
    CHECK(names_in(place).empty());
  }
}

TEST_CASE("output: links to one file have one lock, and what cannot be written is said at once") {
  const Scratch scratch;
  fs::create_directory(scratch / "real");
  fs::create_symlink("real/a", scratch / "link");
  const auto lock = OutputLock::beside(scratch / "real/a");
  CHECK_MESSAGE_HOLDS(InvalidArgument, "link is being written by process", OutputLock::beside(scratch / "link"));
  CHECK_MESSAGE_HOLDS(DataError, "cannot write " + (scratch / "no/a").string() + ": No such file",
                      OutputLock::beside(scratch / "no/a"));
  CHECK_MESSAGE_HOLDS(DataError, ": Not a directory", OutputLock::in(scratch.put("file", "")));
}

TEST_CASE("output: parts of processes that are gone go; those of others, and other files, stay") {
  const Scratch scratch;
  const Names others{".a.part", "a.whence-part", "b"};
  for (const auto& name : others) {
    scratch.put(name, "");
  }
  const auto held = scratch.put(".a.1-7.whence-part", "");
  const int descriptor = ::open(held.c_str(), O_RDONLY);
  REQUIRE(::flock(descriptor, LOCK_EX) == 0);
  scratch.put(".a.1-6.whence-part", "");
  fs::create_directories(scratch / ".f.1-5.whence-part/inner");
  write_text(scratch / "a", "x");
  auto left = others;
  left.insert({"a", held.filename().string()});
  CHECK(names_in(scratch.folder()) == left);
  ::close(descriptor);
}

TEST_CASE("output: a folder appears and is replaced in one step, and what else lay in it stays") {
  const Scratch scratch;
  const auto model = scratch / "model";
  const auto write = [&](const std::string& text) {
    write_folder_atomically(model, [&](const fs::path& part) {
      write_text(part / "a", text);
      write_text(part / "b", text);
      CHECK(fs::exists(model / "a") == (text != "one"));
    });
  };
  write("one");
  CHECK(names_in(scratch.folder()) == Names{"model"});
  fs::create_directory(model / "notes");
  write_text(model / "notes/mine", "kept");
  fs::create_symlink("a", model / "link");
  fs::permissions(model, fs::perms(0750));
  write("two");
  CHECK(names_in(model) == Names{"a", "b", "link", "notes"});
  CHECK(read_text(model / "a") == "two");
  CHECK(read_text(model / "notes/mine") == "kept");
  CHECK(fs::is_symlink(model / "link"));
  CHECK(fs::status(model).permissions() == fs::perms(0750));
  CHECK_MESSAGE_HOLDS(DataError, "cannot write " + (model / "no/a").string() + ": No such file",
                      write_folder_atomically(model, [](const fs::path& part) { write_text(part / "no/a", ""); }));
  CHECK(read_text(model / "a") == "two");
  CHECK(names_in(scratch.folder()) == Names{"model"});
  CHECK_MESSAGE_HOLDS(DataError, "model/a: Not a directory", write_folder_atomically(model / "a", [](const auto&) {}));
}

TEST_CASE("output: folders are made, or the reason is said; a temporary one goes, and a dead process's too") {
  const Scratch scratch;
  make_folder("");
  make_folder(scratch / "x/y");
  make_folder(scratch / "x/y");
  const auto file = scratch.put("file", "");
  CHECK_MESSAGE_HOLDS(DataError, "cannot make the folder " + file.string() + ": Not a directory", make_folder(file));
  CHECK_MESSAGE_HOLDS(DataError, "Not a directory", make_folder(file / "z"));

  const auto* named = std::getenv("TMPDIR");
  const std::string before = named == nullptr ? "" : named;
  ::setenv("TMPDIR", (scratch / "x").c_str(), 1);
  {
    Child child([&](const auto& ready) {
      const TemporaryFolder folder;
      write_text(folder.path() / "scores", "x");
      ready();
    });
    child.kill();
    CHECK(names_in(scratch / "x").size() == 2);
    const TemporaryFolder folder;
    CHECK(names_in(scratch / "x") == Names{"y", folder.path().filename().string()});
    CHECK(fs::status(folder.path()).permissions() == fs::perms(0700));
  }
  CHECK(names_in(scratch / "x") == Names{"y"});
  ::setenv("TMPDIR", file.c_str(), 1);
  CHECK_MESSAGE_HOLDS(DataError, "TMPDIR = " + file.string() + ", expected a folder", TemporaryFolder());
  named == nullptr ? ::unsetenv("TMPDIR") : ::setenv("TMPDIR", before.c_str(), 1);
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
