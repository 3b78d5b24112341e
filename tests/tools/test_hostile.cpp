#include <sys/stat.h>

#include "support/reseal.h"
#include "support/tool.h"

namespace whence::test {
namespace {

TEST_SUITE_BEGIN("tools");

TEST_CASE("a pipe in place of a file is refused at once") {
  const ToolFolder folder;
  for (const char* name : {"p.safetensors", "p.csv", "p.toml", "p.gz"}) {
    REQUIRE(::mkfifo((folder / name).c_str(), 0600) == 0);
    check_fails(folder.run(std::string("inspect ") + name), 1, "not a regular file, but a pipe");
  }
}

TEST_CASE("JSON nested without end is refused by every reader in one line") {
  const ToolFolder folder;
  const std::string lists(100'000, '[');
  folder.write("t.jsonl", lists + "\n");
  folder.write("task.json", lists);
  for (const char* name : {"result/run.json", "page/icl.json", "model/config.json", "words/tokenizer.json"}) {
    std::filesystem::create_directories((folder / name).parent_path());
    folder.write(name, lists);
  }
  reseal(folder / "page", {{"command", "icl"}, {"key", ""}, {"files", {{"icl.json", nullptr}}}});
  folder.write("model.toml", folder.pipeline("spec = \"mlp:widths=6,activation=tanh\"", "checkpoint = \"model\""));
  for (const char* command : {"inspect t.jsonl", "inspect result", "inspect model", "inspect words", "report result",
                              "report page", "rank --from result/run.json", "evaluate pipeline.toml --scores result",
                              "icl --model model --task task.json", "train model.toml", "init model t.jsonl"}) {
    CAPTURE(command);
    check_fails(folder.run(command), 1, "nests deeper than 512");
  }
}

TEST_CASE("a result's files that lack a key or hold another type are named with the way to it") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --quiet").status == 0);
  REQUIRE(folder
              .run("rank pipeline.toml --stage finetune --queries test --limit-queries 1 --curvature gauss-newton "
                   "--relative-damping 1 --quiet --out out")
              .status == 0);
  const auto run = nlohmann::ordered_json(folder.json("out/run.json"));
  const auto with = [&](const std::string& pointer, const nlohmann::json& value) {
    auto changed = run;
    const nlohmann::ordered_json::json_pointer place(pointer);
    changed[place] = value;
    if (value.is_discarded()) {
      changed[place.parent_pointer()].erase(place.back());
    }
    reseal(folder / "out", changed);
  };
  const nlohmann::json gone(nlohmann::json::value_t::discarded);
  const auto fails = [&](const std::string& pointer, const nlohmann::json& value, const std::string& told) {
    CAPTURE(pointer);
    with(pointer, value);
    check_fails(folder.run("report out"), 1, told);
  };
  fails("/options/method", 3, "out/run.json: options.method = 3, expected a text");
  fails("/options/measurement", gone, "out/run.json: options: the key \"measurement\" is missing");
  fails("/options", nlohmann::json::array(), "out/run.json: options = a list of 0, expected an object");
  fails("/stages/finetune/solves", "none", "out/run.json: stages.finetune.solves = \"none\", expected a list");
  fails("/stages", gone, "out/run.json: the key \"stages\" is missing");
  fails("/warnings", {1}, "out/run.json: warnings = a list of 1, expected a list, each entry a text");
  fails("/seed", -1, "out/run.json: seed = -1, expected a whole number");
  with("/arguments", 7);
  check_fails(folder.run("rank --from out/run.json"), 1, "out/run.json: arguments = 7, expected a list");
  folder.write("out/ranking.jsonl", R"({"query": 0, "measurement": 1, "proponents": [{"example": "x"}]})");
  check_fails(folder.run("report out"), 1, "out/ranking.jsonl was changed since whence wrote it");
  reseal(folder / "out", run);
  check_fails(folder.run("report out"), 1,
              "ranking.jsonl: line 1: proponents[0].example = \"x\", expected a whole number");
  std::filesystem::create_directories(folder / "page");
  folder.write("page/icl.json",
               R"({"task": "t", "demonstrations": [{"input": 1}], "prompt-tokens": 1, "queries": {}})");
  reseal(folder / "page", {{"command", "icl"}, {"key", ""}, {"files", {{"icl.json", nullptr}}}});
  check_fails(folder.run("report page"), 1, "page/icl.json: the key \"warnings\" is missing");
}

TEST_CASE("what a file or a name holds commands no terminal and breaks no line") {
  const ToolFolder folder;
  ParameterSet tensors;
  tensors.add("red\x1b[31m\nsecond\u202E\xC2\x9B", at::zeros({2}));
  write_safetensors(folder / "t.safetensors", tensors, {{"key\x1b", "value\nline"}});
  const auto shown = folder.run("inspect t.safetensors");
  CHECK(shown.status == 0);
  CHECK(shown.out.find("red\\x1b[31m\\nsecond\\u{202e}\\u{9b}") == 0);
  CHECK(shown.out.find("key\\x1b") != std::string::npos);
  CHECK(std::count(shown.out.begin(), shown.out.end(), '\n') == 3);
  folder.write("t.csv", "x,label\n1,\"a\x1b[2J\nb\"\n2,c\n");
  const auto labels = folder.run("inspect t.csv");
  CHECK(labels.status == 0);
  CHECK(labels.out.find("a\\x1b[2J\\nb") != std::string::npos);
  CHECK(labels.out.find('\x1b') == std::string::npos);
  check_fails(folder.run("inspect 'no\x1b[31m\nsuch'"), 1, "no\\x1b[31m\\nsuch");
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
