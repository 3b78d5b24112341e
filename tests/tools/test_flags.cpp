// What users need not say, and what help shows.
#include <sys/resource.h>

#include <limits>
#include <new>

#include "../tools/memory_limit.h"
#include "support/near.h"
#include "support/tool.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

constexpr const char* kOneStage = R"(
[model]
spec = "linear"
[[stage]]
name = "fit"
train = { format = "safetensors", file = "pretrain.safetensors" }
weight-decay = 1e-2
checkpoint = "run/fit.safetensors"
[queries.test]
data = { format = "safetensors", file = "queries.safetensors" }
)";

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("--stage and --queries may be left out where there is one; else the names are told") {
  const ToolFolder folder;
  folder.write("one.toml", kOneStage);
  REQUIRE(folder.run("train one.toml --quiet").status == 0);
  auto result = folder.run("score one.toml --out short --quiet");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(folder.json("short/run.json")["options"]["stage"] == "fit");
  CHECK(folder.json("short/run.json")["options"]["queries"] == "test");
  REQUIRE(folder.run("score one.toml --stage fit --queries test --out long --quiet").status == 0);
  CHECK(folder.read("short/scores.safetensors") == folder.read("long/scores.safetensors"));
  REQUIRE(folder.run("score one.toml --stage all --out all --quiet").status == 0);
  CHECK(read_scores(folder / "all").stages[0].name == "scores.fit");

  check_fails(folder.run("rank pipeline.toml --quiet"), 2,
              "pipeline.toml has pretrain, finetune, or all: --stage finetune");
  folder.write("two.toml", std::string(kOneStage) + R"([queries.other]
data = { format = "safetensors", file = "queries.safetensors" }
)");
  check_fails(folder.run("rank two.toml --quiet"), 2, "two.toml has other, test: --queries other");
  const std::string text = kOneStage;
  folder.write("none.toml", text.substr(0, text.find("[queries")));
  check_fails(folder.run("rank none.toml --quiet"), 2, "has no queries");
  CHECK(folder.run("rank none.toml --self --quiet").status == 0);
}

TEST_CASE("--from: before the pipeline or after it, switches or values before it, new arguments first") {
  const ToolFolder folder;
  folder.write("one.toml", kOneStage);
  REQUIRE(folder.run("train one.toml --quiet").status == 0);
  REQUIRE(folder.run("rank --quiet one.toml --top 2 --damping 1e-3 --out first").status == 0);
  const auto bytes = folder.read("first/scores.safetensors");
  int number = 0;
  for (const char* arguments :
       {"score --from first/run.json one.toml --out {}", "score one.toml --from first/run.json --out {}",
        "score --quiet one.toml --out {} --from=first/run.json",
        "score --out {} --quiet one.toml --from first/run.json", "score --from first/run.json --out {}",
        "rank --out {} --from first/run.json"}) {
    CAPTURE(arguments);
    const auto out = fmt::format("out{}", ++number);
    const auto result = folder.run(fmt::format(fmt::runtime(arguments), out));
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    CHECK(folder.read(out + "/scores.safetensors") == bytes);
  }
  REQUIRE(folder.run("score --from first/run.json --relative-damping 0.1 --out relative").status == 0);
  CHECK(folder.json("relative/run.json")["options"]["relative-damping"] == 0.1);
  REQUIRE(folder.run("score --from first/run.json --self --out self").status == 0);
  CHECK(folder.json("self/run.json")["options"]["self"] == true);
  // what training was too short for is repeated too
  std::string once = kOneStage;
  once.replace(once.find("weight-decay"), 0, "optimizer = \"adam:epochs=2,learning-rate=1e-3\"\n");
  folder.write("short.toml", once);
  REQUIRE(folder.run("train short.toml --force --quiet").status == 0);
  const auto chosen = folder.run("rank short.toml --out short");
  CAPTURE(chosen.err);
  REQUIRE(chosen.status == 0);
  CHECK(chosen.err.find("damping 1 x mean eigenvalue or by training time (") != std::string::npos);
  const auto shorter = folder.json("short/run.json");
  CHECK(shorter["options"]["training-damping"][0] == shorter["stages"]["fit"]["damping"]);
  const auto& stage = shorter["stages"]["fit"];
  CHECK(stage["damping"].get<double>() > 2 * stage["mean-eigenvalue"].get<double>());
  REQUIRE(folder.run("score --from short/run.json --out again").status == 0);
  CHECK(folder.read("again/scores.safetensors") == folder.read("short/scores.safetensors"));
  REQUIRE(folder.run("rank short.toml --curvature gauss-newton --damping training --out typed").status == 0);
  CHECK(folder.read("typed/scores.safetensors") == folder.read("short/scores.safetensors"));
  check_fails(folder.run("rank short.toml --damping training --relative-damping 2 --out x"), 2, "exclude each other");
  check_fails(folder.run("rank short.toml --damping training --inversion pseudo --out x"), 2,
              "--inversion pseudo takes no damping");
  check_fails(folder.run("rank short.toml --damping 0.1 --inversion pseudo --out x"), 2,
              "--inversion pseudo takes no damping");
  check_fails(folder.run("rank short.toml --damping much --out x"), 2, "expected auto, training or a number >= 0");
  check_fails(folder.run("score --from nowhere.json --out x"), 1, "nowhere.json");
  check_fails(folder.run("score --from first/run.json --oout x"), 2, "did you mean \"--out\"?");
  check_fails(folder.run("score --out x --from"), 2, "from");
}

TEST_CASE("the help of every command shows two examples that parse, and common flags last") {
  const ToolFolder folder;
  const auto usage = folder.run("--help").out;
  std::istringstream lines(usage.substr(usage.find("Commands:")));
  std::string line;
  std::getline(lines, line);
  int commands = 0;
  while (std::getline(lines, line) && line.starts_with("  ")) {
    const auto command = line.substr(2, line.find(' ', 2) - 2);
    CAPTURE(command);
    ++commands;
    const auto help = folder.run(command + " --help");
    CHECK(help.status == 0);
    CHECK(help.out.find("\nOptions") < help.out.find("\nCommon options"));
    std::istringstream text(help.out);
    int examples = 0;
    for (std::string row; std::getline(text, row);) {
      if (row.starts_with("  whence ")) {
        ++examples;
        CAPTURE(row);
        std::filesystem::remove(folder / "pipeline.toml");  // which the example of init would find
        const auto result = folder.run(row.substr(9, row.find(" && ") - 9));
        CAPTURE(result.err);
        CHECK(result.status <= 1);  // the files are not there, but the arguments are right
      }
    }
    CHECK(examples == 2);
  }
  CHECK(commands >= 9);
}

TEST_CASE("queries by row, and those that the model gets wrong") {
  const ToolFolder folder;
  const std::string text = kOneStage;
  folder.write("rows.toml", text.substr(0, text.find("[queries")) + R"([queries.some]
data = { format = "safetensors", file = "pretrain.safetensors", rows = [17, 3, 150] }
[queries.all]
data = { format = "safetensors", file = "pretrain.safetensors" }
)");
  REQUIRE(folder.run("train rows.toml --quiet").status == 0);
  REQUIRE(folder.run("score rows.toml --queries some --out some --quiet").status == 0);
  const auto some = read_scores(folder / "some");
  CHECK(at::equal(some.query_ids, at::tensor({17, 3, 150}, at::kLong)));
  REQUIRE(folder.run("score rows.toml --queries all --out all --quiet").status == 0);
  const auto all = read_scores(folder / "all");
  CHECK(test::relative_error(some.stages[0].scores, all.stages[0].scores.index_select(0, some.query_ids)) < 1e-3);

  auto result = folder.run("rank rows.toml --queries all --queries-wrong --out wrong --limit-queries 2");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.err.find(" of 200 queries of [queries.all] wrong") != std::string::npos);
  std::istringstream lines(folder.read("wrong/ranking.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto said = nlohmann::json::parse(line)["prediction"];
    CHECK(said["predicted"] != said["expected"]);
  }
  CHECK(count == 2);
  CHECK(folder.run("evaluate rows.toml --scores wrong --examples 3 --quiet").status == 0);
  CHECK(folder.run("report wrong").status == 0);

  const auto refuse = [&](const std::string& rows, const std::string& part) {
    auto bad = folder.read("rows.toml");
    bad.replace(bad.find("[17, 3, 150]"), 12, rows);
    folder.write("bad.toml", bad);
    check_fails(folder.run("score bad.toml --queries some --out x --quiet"), 1, part);
  };
  check_fails(folder.run("rank rows.toml --self --queries-wrong"), 2, "leave out --queries-wrong");
  refuse("[17, 200]", "row 200 of");
  refuse("[17, 17]", "listed twice");
  refuse("[1.5]", "whole number from 0 to 199");
}

TEST_CASE("out of memory says so and what to lower; a folder that cannot be made is no bug") {
  const ToolFolder folder;
#ifndef __SANITIZE_ADDRESS__  // whose shadow is larger than any limit
  std::string text = kOneStage;
  text.replace(text.find("linear"), 6, "mlp:widths=60000/60000");
  folder.write("huge.toml", text);
  check_fails(folder.start("ulimit -v 12000000", "train huge.toml --quiet"), 1,
              "out of memory: 29 GB were asked for at once: lower --batch-size");
#endif
  folder.write("one.toml", kOneStage);
  REQUIRE(folder.run("train one.toml --quiet").status == 0);
  check_fails(folder.run("score one.toml --quiet --out one.toml/result"), 1, "one.toml/result");
}

TEST_CASE("a memory limit makes blocks and batches small enough, holds, and says so where none will do") {
  const ToolFolder folder;
  std::string text = kOneStage;
  text.replace(text.find("linear"), 6, "mlp:widths=700/400,activation=tanh");
  text.replace(text.find("queries.safetensors"), 7, "pretrain");
  text.replace(text.find("pretrain"), 8, "few");
  text.replace(text.find("checkpoint"), 0, "optimizer = \"adam:epochs=1\"\n");
  folder.write_data("few.safetensors", 40, 3);
  folder.write("wide.toml", text);
  const std::string rank = "rank wide.toml --method grad-cos --quiet --out ";
  for (const char* size : {"0", "-1G", "lots", "4X", "4GiBs", "1 2G"}) {
    check_fails(folder.run(rank + "x --memory-limit '" + size + "'"), 2,
                fmt::format("--memory-limit = {}, expected a size: 800M, 1.5GiB, 4G", size));
  }
  check_fails(folder.run(rank + "x --memory-limit 40MB"), 2, "--memory-limit = 38 MiB, expected more than the ");
#ifndef __SANITIZE_ADDRESS__  // whose shadow is larger than any limit
  REQUIRE(folder.run("train wide.toml --quiet").status == 0);
  const std::string solve =
      "rank wide.toml --curvature gauss-newton --relative-damping 1 --solver cg:max-iterations=2 --limit-queries 40 "
      "--query-block 40 ";
  constexpr double kLimit = 420 << 20;
  const auto tight = folder.start("true", solve + "--out tight --memory-limit 420M");
  CAPTURE(tight.err);
  REQUIRE(tight.status == 0);
  CHECK(tight.err.find("whence: note: --query-block ") != std::string::npos);
  CHECK(tight.err.find("to stay within --memory-limit") != std::string::npos);
  rusage children{};
  ::getrusage(RUSAGE_CHILDREN, &children);  // the most of any so far
  CHECK(1024.0 * static_cast<double>(children.ru_maxrss) <= kLimit);
  REQUIRE(folder.start("true", solve + "--quiet --out wide").status == 0);
  ::getrusage(RUSAGE_CHILDREN, &children);
  CHECK(1024.0 * static_cast<double>(children.ru_maxrss) > 1.4 * kLimit);
  CHECK(folder.json("tight/run.json")["options"]["batch-size"] <= 20);  // half of the 40 examples, or less
  CHECK(folder.json("wide/run.json")["options"]["batch-size"] == 1024);
  const auto scores = read_scores(folder / "tight").stages[0].scores,
             truth = read_scores(folder / "wide").stages[0].scores;
  CHECK((scores - truth).norm().item<double>() < 1e-3 * truth.norm().item<double>());
  text.replace(text.find("700/400"), 7, "60000/60000");
  text.replace(text.find("run/fit"), 7, "run/huge");
  folder.write("huge.toml", text);
  check_fails(folder.run("train huge.toml --quiet --memory-limit 2G"), 1,
              "out of memory within 2.0 GiB: 29 GB were asked for at once: lower --batch-size (examples at a time)\n");
#endif
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // whose operator new has no such handler
namespace {

bool can_allocate(std::size_t bytes) {
  try {
    ::operator delete(::operator new(bytes));
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

constexpr std::size_t kTooMuch = std::numeric_limits<std::size_t>::max() / 4;

/// Asks for too much while an exception unwinds, as JSON's destructors may.
struct Greedy {
  bool& got;
  ~Greedy() { got = can_allocate(kTooMuch); }
};

}  // namespace

TEST_CASE("the reserve is for what is asked for while an exception unwinds, once, and is kept anew") {
  const auto handler = std::get_new_handler();
  for (int time = 0; time < 2; ++time) {
    cli::keep_reserve();
    cli::keep_reserve();  // one is kept
    CHECK_FALSE(can_allocate(kTooMuch));
    CHECK(cli::release_reserve());
    CHECK_FALSE(cli::release_reserve());
    cli::keep_reserve();
    bool got = true;
    try {
      const Greedy greedy{got};
      throw 1;
    } catch (int) {
    }
    CHECK_FALSE(got);
    CHECK_FALSE(cli::release_reserve());  // it was tried
  }
  std::set_new_handler(handler);
}
#endif

TEST_SUITE_END();
