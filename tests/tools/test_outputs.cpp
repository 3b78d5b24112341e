// What happens to outputs when something is in the way: another process, a kill, a full disk, a read-only folder, a
// closed pipe.
#include <fcntl.h>
#include <sys/file.h>

#include <optional>
#include <set>

#include "support/contents.h"
#include "support/near.h"
#include "support/tool.h"
#include "whence/core/output.h"

using namespace whence;
using test::check_fails;
using test::less_warnings;
using test::Names;
using test::names_in;
using test::ToolFolder;
using test::ToolResult;
namespace fs = std::filesystem;

namespace {

/// Runs a shell command in the folder, in which $W is the tool; its standard error goes to err.txt.
ToolResult shell(const ToolFolder& folder, const std::string& command) {
  folder.write("command.sh", fmt::format("W='{}'\n{}\n", WHENCE_TOOL, command));
  const int status = std::system(
      fmt::format("cd '{}' && bash command.sh >out.txt 2>err.txt </dev/null", folder.path().string()).c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, folder.read("out.txt"), folder.read("err.txt")};
}

/// As root without the right to write where permissions forbid it; nothing where this system has no such thing.
std::optional<std::string> unprivileged(const ToolFolder& folder) {
  const std::string way =
      ::geteuid() == 0 ? "setpriv --bounding-set=-dac_override,-dac_read_search,-fowner " : std::string();
  return shell(folder, way + "true").status == 0 ? std::optional(way) : std::nullopt;
}

void trained(const ToolFolder& folder) { REQUIRE(folder.run("train pipeline.toml --quiet").status == 0); }

const std::string kRank = "rank pipeline.toml --stage finetune --quiet ";

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("a second process writes nothing where one is writing, and says which that is") {
  const ToolFolder folder;
  const auto refused = [&](const std::string& arguments, const std::string& what) {
    CAPTURE(arguments);
    check_fails(folder.run(arguments), 1, fmt::format("{} is being written by process {} (started ", what, ::getpid()));
  };
  fs::create_directories(folder / "run");
  {
    const auto lock = OutputLock::beside(folder / "run/finetune.safetensors");
    refused("train pipeline.toml --quiet", "run/finetune.safetensors");
    CHECK(fs::exists(folder / "run/pretrain.safetensors"));
  }
  trained(folder);
  CHECK(folder.run(kRank + "--out out --curvature ekfac:factors=factors --solver ekfac").status == 0);
  const auto factors = names_in(folder / "factors");
  REQUIRE(factors.size() == 1);
  {
    const auto whole = folder.read("out/scores.safetensors");
    const auto lock = OutputLock::in(folder / "out");
    for (const char* arguments :
         {"rank pipeline.toml --damping 1", "rank pipeline.toml --self", "score pipeline.toml --damping 1"}) {
      refused(fmt::format("{} --quiet --stage finetune --out out", arguments), "out");
    }
    refused("evaluate pipeline.toml --scores out --quiet", "out");
    refused("report out", "out");
    CHECK(folder.read("out/scores.safetensors") == whole);
    CHECK(folder.run("report out --out other.html").status == 0);  // which only reads what lies there
  }
  const auto page = OutputLock::beside(folder / "other.html");
  refused("report out --out other.html", "other.html");
  const auto plot = OutputLock::beside(folder / "plot.svg");
  refused("inspect pipeline.toml --spectrum --quiet --plot plot.svg", "plot.svg");

  const auto file = "factors/" + *factors.begin();
  const auto held = OutputLock::beside(folder / file);
  const auto ekfac = kRank + "--curvature ekfac:factors=factors --solver ekfac";
  CHECK(folder.run(ekfac).status == 0);  // whole ones are read
  fs::remove(folder / file);
  refused(ekfac, file);
}

TEST_CASE("what killed processes left goes with the next run, and a finished one leaves nothing but its results") {
  const ToolFolder folder;
  fs::create_directories(folder / "run");
  folder.write("run/.pretrain.safetensors.lock", "process 1 (started 2020-01-01 00:00:00 UTC)\n");
  folder.write("run/.pretrain.safetensors.1-0.whence-part", "half");
  folder.write("run/.pretrain.safetensors.unfinished.1-3.whence-part", "half");
  trained(folder);
  CHECK(names_in(folder / "run") == Names{"pretrain.safetensors", "finetune.safetensors"});
  fs::create_directories(folder / "out");
  folder.write("out/.run.json.1-0.whence-part", "half");
  CHECK(folder.run(kRank + "--out out").status == 0);
  CHECK(names_in(folder / "out") == Names{"ranking.jsonl", "run.json", "scores.safetensors"});
}

TEST_CASE("in folders that cannot be written to, every command says so in one line") {
  const ToolFolder folder;
  trained(folder);
  REQUIRE(folder.run(kRank + "--out out").status == 0);
  fs::create_directories(folder / "closed");
  fs::permissions(folder / "closed", fs::perms(0555));
  fs::permissions(folder / "run", fs::perms(0555));
  fs::permissions(folder / "out", fs::perms(0555));
  if (const auto way = unprivileged(folder)) {
    const auto refused = [&](const std::string& arguments, const std::string& what) {
      CAPTURE(arguments);
      const auto result = less_warnings(shell(folder, fmt::format("{}$W {}", *way, arguments)));
      check_fails(result, 1, what);
      CHECK(result.err.find(": Permission denied") != result.err.npos);
    };
    refused("train pipeline.toml --force --quiet", "cannot write run/pretrain.safetensors");
    refused(kRank + "--out closed/x", "closed/x");
    refused(kRank + "--out closed", "cannot write closed");
    refused("score pipeline.toml --stage finetune --self --quiet --out closed", "cannot write closed");
    refused("evaluate pipeline.toml --scores out --examples 2 --quiet", "out");
    refused("evaluate pipeline.toml --scores out --examples 2 --quiet --out closed/x", "closed/x");
    refused("report out", "cannot write out");
    refused("init queries.safetensors --out closed/p.toml", "cannot write closed/p.toml");
    refused("inspect pipeline.toml --spectrum --quiet --plot closed/a.svg", "cannot write closed/a.svg");
    refused(kRank + "--curvature ekfac:factors=closed/f --solver ekfac", "cannot make the folder closed/f");
  } else {
    MESSAGE("no setpriv here, so root writes everywhere");
  }
  for (const char* name : {"closed", "run", "out"}) {
    fs::permissions(folder / name, fs::perms(0755));
  }
  CHECK(names_in(folder / "closed").empty());
  CHECK(names_in(folder / "out") == Names{"ranking.jsonl", "run.json", "scores.safetensors"});

  const auto refused = [&](const std::string& arguments, const std::string& what) {
    CAPTURE(arguments);
    check_fails(folder.run(arguments), 1, what);
  };
  refused(kRank + "--out pipeline.toml", "cannot make the folder pipeline.toml: Not a directory");
  refused("evaluate pipeline.toml --scores out --examples 2 --out pipeline.toml/x --quiet",
          "pipeline.toml/x: Not a directory");
  refused("report out --out nowhere/x.html", "cannot write nowhere/x.html: No such file or directory");
  refused("report out --out run", "cannot write run: Is a directory");
  refused(kRank + "--out " + std::string(300, 'n'), ": File name too long");
  fs::create_symlink("loop", folder / "loop");
  refused(kRank + "--out loop", ": Too many levels of symbolic links");
}

TEST_CASE("a full disk is one line that names the file, and leaves nothing half-written") {
  const ToolFolder folder;
  trained(folder);
  REQUIRE(folder.run(kRank + "--out out").status == 0);
  auto whole = names_in(folder / "out");
  whole.insert("bank");  // trainings that were there in full: small files
  const auto full = [&](const std::string& arguments, const std::string& what) {
    CAPTURE(arguments);
    const auto result = less_warnings(shell(folder, "ulimit -f 1; exec $W " + arguments));
    check_fails(result, 1, fmt::format("cannot write {}", what));
    CHECK(result.err.find(": File too large") != result.err.npos);
  };
  full("train pipeline.toml --force --quiet", "run/pretrain.safetensors");
  CHECK(names_in(folder / "run") == Names{"pretrain.safetensors", "finetune.safetensors"});
  full(kRank + "--out new", "new/");
  CHECK(!fs::exists(folder / "new/scores.safetensors"));
  CHECK(!fs::exists(folder / "new/run.json"));
  full("score pipeline.toml --stage finetune --self --quiet --out self", "self/");
  CHECK(!fs::exists(folder / "self"));
  full("evaluate pipeline.toml --scores out --examples 2 --quiet", "out/");
  full("report out", "out/.whence-new/report.html");
  full("inspect pipeline.toml --spectrum --quiet --plot a.svg", "a.svg");
  full(kRank + "--curvature ekfac:factors=factors --solver ekfac", "factors/");
  CHECK(names_in(folder / "factors").empty());
  CHECK(names_in(folder / "out") == whole);

  // a real one, where this user may mount
  fs::create_directories(folder / "disk");
  const std::string mount = "mount -t tmpfs -o size=4k none disk";
  if (shell(folder, "unshare -m " + mount).status != 0) {
    MESSAGE("no file system can be mounted here");
    return;
  }
  folder.write("disk.sh",
               fmt::format("{}; '{}' {}--out disk; r=$?; ls -A disk >&2; exit $r", mount, WHENCE_TOOL, kRank));
  const auto result = shell(folder, "unshare -m bash disk.sh");
  CAPTURE(result.err);
  CHECK(result.status == 1);
  CHECK(result.err.find(": No space left on device") != result.err.npos);
  CHECK(result.err.find("\nrun.json") == result.err.npos);
}

TEST_CASE("a link that is an output stays one, and what it names is written") {
  const ToolFolder folder;
  fs::create_directories(folder / "run");
  fs::create_directories(folder / "real");
  fs::create_symlink("../real/weights.safetensors", folder / "run/pretrain.safetensors");
  fs::create_directory_symlink("real", folder / "out");
  trained(folder);
  CHECK(fs::is_symlink(folder / "run/pretrain.safetensors"));
  CHECK(names_in(folder / "real") == Names{"weights.safetensors"});
  CHECK(folder.run(kRank + "--out out").status == 0);
  CHECK(fs::is_symlink(folder / "out"));
  CHECK(names_in(folder / "real") == Names{"weights.safetensors", "ranking.jsonl", "run.json", "scores.safetensors"});
}

TEST_CASE("what could not be printed is said, with a status; a closed pipe ends quietly") {
  const ToolFolder folder;
  trained(folder);
  for (const std::string command : {"--help", "--version", "methods", "train --help", "train pipeline.toml --json",
                                    "inspect pipeline.toml", "inspect pipeline.toml --json"}) {
    CAPTURE(command);
    check_fails(shell(folder, fmt::format("$W {} >/dev/full", command)), 1,
                "cannot write standard output: No space left on device");
    check_fails(shell(folder, fmt::format("$W {} >&-", command)), 1,
                "cannot write standard output: Bad file descriptor");
    for (const char* pipe : {"", "trap '' PIPE; "}) {  // the signal, or the write that fails where it is ignored
      const auto closed =                              // a pipe whose only reader is gone
          shell(folder,
                fmt::format("{}mkfifo p; exec 4<>p 5>p 4>&-; rm p; $W {} 2>&1 >&5; echo status $?", pipe, command));
      CHECK(closed.out == "status 141\n");
    }
  }
  check_fails(shell(folder, "$W train pipeline.toml >/dev/full"), 1, "cannot write standard output: ");
  CHECK(shell(folder, "$W " + kRank + "--out out >/dev/full").status == 1);
  CHECK(names_in(folder / "out") == Names{"ranking.jsonl", "run.json", "scores.safetensors"});
  // nothing that is opened takes a closed stream's number
  CHECK(shell(folder, "$W " + kRank + "--out two >&- 2>&-").status == 1);
  CHECK(folder.read("two/scores.safetensors") == folder.read("out/scores.safetensors"));
}

TEST_CASE("whole numbers are taken exactly or not at all") {
  const ToolFolder folder;
  const auto refused = [&](const std::string& seed, const std::string& part) {
    CAPTURE(seed);
    folder.write("seed.toml", folder.pipeline("seed = 3", "seed = " + seed));
    check_fails(folder.run("train seed.toml --quiet"), 1, part);
  };
  refused("0.5", "seed = 0.5, expected a whole number >= 0");
  refused("1.0", "seed = 1.0, expected a whole number >= 0");
  refused("-1", "seed = -1, expected a whole number >= 0");
  refused("9223372036854775808", "seed.toml: line 1");
  refused("true", "seed = true, expected");
  folder.write("seed.toml", folder.pipeline("seed = 3", "seed = 9007199254740993"));
  REQUIRE(folder.run("train seed.toml --quiet").status == 0);
  const auto seed_of = [&](const std::string& arguments) {
    CHECK(folder.run("score seed.toml --stage finetune --quiet --out out " + arguments).status == 0);
    return folder.json("out/run.json")["seed"].get<std::uint64_t>();
  };
  CHECK(seed_of("") == 9007199254740993u);
  CHECK(seed_of("--seed 9223372036854775807") == 9223372036854775807u);
  const auto misused = [&](const std::string& arguments, const std::string& part) {
    CAPTURE(arguments);
    check_fails(folder.run("score seed.toml --stage finetune --quiet --out out " + arguments), 2, part);
  };
  misused("--seed=-1", "--seed = -1, expected a whole number >= 0");
  misused("--seed 9223372036854775808", "9223372036854775808");
  misused("--seed 0.5", "0.5");
  misused("--batch-size 0", "--batch-size = 0, expected a whole number >= 1");
  for (const char* threads : {"-1", "10000", "4294967297"}) {
    misused(fmt::format("--threads={}", threads), fmt::format("--threads = {}, expected 0 to ", threads));
    misused(fmt::format("--threads={}", threads), " cores, and 0 takes all");
  }
}

TEST_SUITE_END();
