#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "doctest/doctest.h"
#include "support/contents.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/store/result_folder.h"

using namespace whence;
using test::contains;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

struct ScratchFolder {
  ScratchFolder() {
    static int count = 0;
    path = fs::temp_directory_path() / ("whence-result-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    fs::remove_all(path);
  }
  ~ScratchFolder() { fs::remove_all(path); }
  fs::path operator/(const std::string& name) const { return path / name; }
  fs::path path;
};

const std::vector<std::string> kNames{"scores", "table", "extra"};

Json run_of(const std::string& name) { return {{"command", "score"}, {"arguments", {"p.toml", name}}}; }

/// Files that say whose they are.
void place(ResultWriter& out, const std::string& whose, const std::vector<std::string>& names) {
  for (const auto& name : names) {
    write_text(out.place(name), name + " of " + whose);
  }
}

void make(const fs::path& folder, const std::string& key, const std::vector<std::string>& names) {
  ResultWriter out(folder, names);
  place(out, key, names);
  out.publish(key, run_of(key));
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    out[fs::relative(entry.path(), folder).string()] = entry.is_directory() ? "/" : read_text(entry.path());
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("store");

TEST_CASE("result folder: what is published is listed with its bytes, and of one key") {
  const ScratchFolder folder;
  make(folder.path, "one", {"scores", "table"});
  const Result result(folder.path);
  CHECK(result.key() == "one");
  CHECK(result.files() == std::vector<std::string>{"scores", "table"});
  CHECK(read_text(result.file("table")) == "table of one");
  CHECK(result.run()["arguments"][1] == "one");
  CHECK(result.run()["files"]["table"]["bytes"] == 12);
  CHECK(result.run()["files"]["table"]["sha256"] == digest(folder / "table"));
  CHECK(contents(folder.path).size() == 3);
  CHECK(contains(test::message_of<DataError>([&] { result.file("extra"); }), "run.json lists no extra"));
  const ResultWriter again(folder.path, kNames);
  CHECK(again.finished("one", {"scores"}) != nullptr);
  CHECK(again.finished("one", {"extra"}) == nullptr);
  CHECK(again.finished("two", {}) == nullptr);
}

TEST_CASE("result folder: another run's files go, the same run's stay, a user's are never touched") {
  const ScratchFolder folder;
  make(folder.path, "one", {"scores", "table"});
  std::ofstream(folder / "notes") << "mine";
  fs::create_directories(folder / ".new");
  fs::create_directories(folder / ".partial");
  make(folder.path, "one", {"extra"});
  CHECK(fs::exists(folder / ".new"));
  CHECK(fs::exists(folder / ".partial"));
  CHECK(Result(folder.path).files() == std::vector<std::string>{"extra", "scores", "table"});
  make(folder.path, "two", {"scores"});
  CHECK(Result(folder.path).files() == std::vector<std::string>{"scores"});
  CHECK(read_text(folder / "scores") == "scores of two");
  CHECK_FALSE(fs::exists(folder / "table"));
  CHECK_FALSE(fs::exists(folder / "extra"));
  CHECK(read_text(folder / "notes") == "mine");

  // one that the user changed is the user's
  make(folder.path, "two", {"table"});
  std::ofstream(folder / "table") << "with a remark";
  make(folder.path, "three", {"scores"});
  CHECK(read_text(folder / "table") == "with a remark");
}

TEST_CASE("result folder: a name that is taken is told before any work") {
  const ScratchFolder folder;
  fs::create_directories(folder.path);
  std::ofstream(folder / "table") << "mine";
  CHECK(contains(test::message_of<InvalidArgument>([&] { ResultWriter(folder.path, kNames); }),
                 "/table was not written by whence and would be overwritten: move it away, or choose another --out"));
  fs::remove(folder / "table");
  fs::create_symlink("nowhere", folder / "table");
  CHECK(contains(test::message_of<InvalidArgument>([&] { ResultWriter(folder.path, kNames); }),
                 "was not written by whence"));
  fs::remove(folder / "table");
  make(folder.path, "one", {"table"});
  std::ofstream(folder / "table") << "table of me!";
  CHECK(contains(test::message_of<InvalidArgument>([&] { ResultWriter(folder.path, kNames); }),
                 "/table was changed since whence wrote it: remove it to have it made again"));
  ResultWriter(folder.path, {"scores"});
  for (const char* text : {"", "{", "[1]", "{\"key\": \"one\"}", "{\"files\": {}, \"sha256\": 1}"}) {
    CAPTURE(text);
    std::ofstream(folder / "run.json") << text;
    CHECK(contains(test::message_of<InvalidArgument>([&] { ResultWriter(folder.path, {"scores"}); }), "run.json"));
    CHECK_THROWS_AS(Result(folder.path), DataError);
  }
  CHECK(contents(folder.path).size() == 2);
}

TEST_CASE("result folder: every flipped bit and every cut is told, naming the file") {
  const ScratchFolder folder;
  make(folder.path, "one", {"scores"});
  for (const char* name : {"scores", "run.json"}) {
    const auto bytes = read_text(folder / name);
    for (std::size_t place = 0; place < 2 * bytes.size(); ++place) {
      CAPTURE(name);
      CAPTURE(place);
      auto changed = bytes;
      if (place < bytes.size()) {
        changed[place] = static_cast<char>(changed[place] ^ (1 << (place % 7)));
      } else {
        changed.resize(place - bytes.size());
      }
      std::ofstream(folder / name, std::ios::binary) << changed;
      const auto told = test::message_of<DataError>([&] { Result(folder.path).file("scores"); });
      const bool blank = std::string(name) == "run.json" && Json::parse(changed, nullptr, false) == Json::parse(bytes);
      CHECK((blank || contains(told, name)));  // white space between the words may be anything
    }
    std::ofstream(folder / name, std::ios::binary) << bytes;
  }
  fs::remove(folder / "scores");
  CHECK(contains(test::message_of<DataError>([&] { Result(folder.path).file("scores"); }),
                 "/scores is missing; made by: whence score p.toml one"));
}

TEST_CASE("result folder: names in a run.json stay in the folder") {
  const ScratchFolder folder;
  for (const char* name : {"../victim", "/etc/passwd", "..", "", "run.json"}) {
    fs::create_directories(folder.path);
    write_record(folder / "run.json", {{"key", "one"}, {"files", {{name, {{"bytes", 1}, {"sha256", "x"}}}}}});
    CHECK_THROWS_AS(Result(folder.path), DataError);
  }
}

TEST_CASE("result folder: killed at any step it holds the old result, or one that the next writer completes") {
  const ScratchFolder old, whole;
  make(old.path, "old", {"scores", "table"});
  fs::copy(old.path, whole.path);
  make(whole.path, "new", {"scores", "extra"});
  const auto wanted = contents(whole.path), before = contents(old.path);

  for (int step = 0; step <= 7; ++step) {
    CAPTURE(step);
    const ScratchFolder folder;
    fs::copy(old.path, folder.path);
    fs::create_directories(folder / ".whence-new");
    const auto stage = [&](const char* name) { fs::copy(whole / name, folder / ".whence-new" / name); };
    const auto move = [&](const char* name) { fs::rename(folder / ".whence-new" / name, folder / name); };
    const std::vector<std::function<void()>> steps{
        [&] { stage("scores"); },  [&] { stage("extra"); }, [&] { stage("run.json"); },
        [&] { move("extra"); },    [&] { move("scores"); }, [&] { fs::remove(folder / "table"); },
        [&] { move("run.json"); },
    };
    for (int i = 0; i < step; ++i) {
      steps[static_cast<std::size_t>(i)]();
    }
    if (step < 3) {  // it has not happened
      CHECK(Result(folder.path).key() == "old");
      { const ResultWriter out(folder.path, kNames); }
      CHECK(contents(folder.path) == before);
      continue;
    }
    if (step < 7) {
      const auto told = test::message_of<DataError>([&] { Result{folder.path}; });
      CHECK(contains(told, "a run was stopped while it moved its files in"));
      CHECK(contains(told, "whence score p.toml new"));
    }
    {
      const ResultWriter out(folder.path, kNames);
      CHECK(out.finished("new", {"scores", "extra"}) != nullptr);
    }
    CHECK(contents(folder.path) == wanted);
  }
}

TEST_CASE("result folder: unfinished work is gone on with, refused to others, and goes when it is done") {
  const ScratchFolder folder;
  {
    ResultWriter out(folder.path, kNames);
    std::ofstream(out.begin("one", run_of("one")) / "journal") << "so far";
    CHECK(contains(test::message_of<InvalidArgument>([&] { ResultWriter(folder.path, kNames); }),
                   "is being written by process "));
    place(out, "one", {"scores"});  // a failure ends it here: what was placed goes
  }
  CHECK_FALSE(fs::exists(folder / ".whence-new"));
  const auto read = [&] { return test::message_of<DataError>([&] { Result(folder.path); }); };
  const auto lock = folder / ".lock";
  std::ofstream(lock) << "process 1 (started 2026-01-01 00:00:00 UTC)\n";
  CHECK(
      contains(read(), "its run is not done: it was stopped, and the same command goes on"));  // killed: no lock on it
  std::array<int, 2> ready{};
  REQUIRE(::pipe(ready.data()) == 0);
  const auto child = ::fork();
  if (child == 0) {
    ::flock(::open(lock.c_str(), O_RDWR), LOCK_EX);
    static_cast<void>(::write(ready[1], "", 1));
    ::pause();
  }
  char byte = 0;
  CHECK(::read(ready[0], &byte, 1) == 1);
  CHECK(contains(read(), "its run is not done: process 1 (started 2026-01-01 00:00:00 UTC) is at work on it: whence"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  {
    ResultWriter out(folder.path, kNames);
    const auto refused = test::message_of<InvalidArgument>([&] { out.begin("two", run_of("two")); });
    CHECK(contains(refused, folder.path.string() + " holds an unfinished run with other settings"));
    CHECK(contains(refused, "finish it (whence score p.toml one), choose another --out, or remove " +
                                (folder / ".whence-partial").string()));
    out.abandon();  // which is not its own
    CHECK(out.earlier().size() == 1);
  }
  make(folder.path, "other", {"scores"});  // without work of its own to keep
  {
    ResultWriter out(folder.path, kNames);
    CHECK(out.earlier().size() == 2);
    CHECK(read_text(out.begin("one", run_of("one")) / "journal") == "so far");
    place(out, "one", {"scores"});
    out.publish("one", run_of("one"));
  }
  CHECK(contents(folder.path).size() == 2);

  // killed while it cleared up; or damaged, so that nobody can tell whose it is
  for (const char* record : {"one", "damaged"}) {
    fs::create_directories(folder / ".whence-partial");
    write_record(folder / ".whence-partial/run.json", {{"key", "one"}});
    if (std::string(record) == "damaged") {
      std::ofstream(folder / ".whence-partial/run.json") << "{\"key\": \"two\"}";
    }
    std::ofstream(folder / ".whence-partial/journal") << "old";
    ResultWriter out(folder.path, kNames);
    CHECK_FALSE(fs::exists(out.begin("two", run_of("two")) / "journal"));
    out.abandon();
    CHECK_FALSE(fs::exists(folder / ".whence-partial"));
  }
}

TEST_CASE("result folder: a failed run leaves no folder that it made") {
  const ScratchFolder folder;
  {
    ResultWriter out(folder.path, kNames);
    CHECK_FALSE(fs::exists(folder.path));
    place(out, "one", {"scores"});
    out.begin("one", run_of("one"));
    CHECK(fs::exists(folder.path));
  }
  CHECK_FALSE(fs::exists(folder.path));
  std::ofstream(folder.path) << "a file";
  CHECK(contains(test::message_of<DataError>([&] { ResultWriter(folder.path, kNames); }), "Not a directory"));
}

TEST_SUITE_END();
