// whence icl through the binary: one task, and many.
#include <algorithm>
#include <numeric>

#include "tools/icl.h"

using namespace whence;
using Json = nlohmann::json;
namespace fs = std::filesystem;

TEST_SUITE_BEGIN("tools");

TEST_CASE("icl scores the demonstrations, verifies them and writes what they are good for") {
  const test::IclFolder folder;
  folder.write("task.json", test::icl_task().dump());
  folder.write("pool.jsonl",
               "{\"input\": \"bad\", \"output\": \"very bad\"}\n{\"input\": \"nice\", \"output\": \"positive\"}\n"
               "{\"input\": \"ok\", \"output\": \"positive\"}\n");
  const auto result = folder.run(
      "icl --model tiny --task task.json --layers 1,3 --by-layer --verify --detect-noise --curate 4 --reorder "
      "two-highest-first --select 2 --pool pool.jsonl --dtype float64 --quiet --out run");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.out.find("6 demonstrations in ") != std::string::npos);
  CHECK(result.out.find("test against removal, among-outputs: Pearson") != std::string::npos);
  const auto json = folder.json("run/icl.json");
  REQUIRE(json["queries"].size() == 3);
  CHECK(json["layers"] == Json{1, 3});
  REQUIRE(json["by-layer"].size() == 2);
  std::vector<double> mean(6, 0);
  for (const auto& query : json["queries"]) {
    for (std::size_t i = 0; i < 6; ++i) {
      double sum = 0;
      for (const auto& [layer, scores] : json["by-layer"].items()) {
        sum += scores["test"][query["query"].get<std::size_t>()][i].get<double>();
      }
      CHECK(query["test"][i].get<double>() == doctest::Approx(sum));
      mean[i] += query["test"][i].get<double>() / 3;
    }
    CHECK(query["verify"]["among-outputs"].size() == 6);
    CHECK(query["leave-one-out"].size() == 6);
    const auto& logs = query["log-probabilities"];
    CHECK(query["prediction"] == (logs["positive"] > logs["very bad"] ? "positive" : "very bad"));
  }
  CHECK(json["queries"][2]["output"].is_null());
  CHECK(json["queries"][2]["explained"] == json["queries"][2]["prediction"]);
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(json["mean-test"][i].get<double>() == doctest::Approx(mean[i]));
  }
  CHECK(json["options"]["lambda"] == "0.1");

  // suspects fall in their self scores; the curated prompt holds the best four in order, and can be run again
  const auto self = json["self"].get<std::vector<double>>();
  const auto suspects = folder.json("run/suspects.json");
  REQUIRE(suspects.size() == 6);
  for (std::size_t k = 0; k < 6; ++k) {
    CHECK(suspects[k]["self"].get<double>() == self[suspects[k]["demonstration"].get<std::size_t>()]);
    CHECK((k == 0 || suspects[k]["self"] <= suspects[k - 1]["self"]));
  }
  const auto curated = folder.json("run/curated.json");
  std::vector<std::size_t> order(6);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return mean[a] > mean[b]; });
  std::sort(order.begin(), order.begin() + 4);
  for (std::size_t k = 0; k < 4; ++k) {
    CHECK(curated["demonstrations"][k] == test::icl_task()["demonstrations"][order[k]]);
  }
  CHECK(folder.read("run/curated.txt").find("Input: ") == 0);
  CHECK(folder.json("run/reordered.json")["demonstrations"].size() == 6);
  CHECK(folder.json("run/selected.json")["demonstrations"].size() == 2);
  const auto again = folder.run("icl --model tiny --task run/curated.json --quiet --json");
  REQUIRE(again.status == 0);
  CHECK(Json::parse(again.out)["demonstrations"].size() == 4);

  REQUIRE(folder.run("report run").status == 0);
  const auto page = folder.read("run/report.html");
  for (int i = 0; i < 6; ++i) {
    const auto row = fmt::format("id=\"demonstration-{}\"", i);
    CHECK(page.find(row) != std::string::npos);
    CHECK(page.find(row) == page.rfind(row));  // once
  }
  CHECK(page.find(json["verdict"].get<std::string>()) != std::string::npos);
  CHECK(page.find(">predicts<") != std::string::npos);
  CHECK(page.find("happy end") != std::string::npos);
  const auto run = folder.json("run/run.json");
  CHECK(run["command"] == "icl");
  CHECK(run["inputs"].size() == 7);  // config, weights, tokenizer and three beside it that are not there, pool
}

TEST_CASE("icl shades demonstrations where the terminal shows colours, and other methods score too") {
  const test::IclFolder folder;
  folder.write("task.json", test::icl_task().dump());
  const auto shaded = folder.start("export CLICOLOR_FORCE=1", "icl --model tiny --task task.json --quiet");
  CHECK(shaded.out.find("\033[48;5;") != std::string::npos);
  CHECK(folder.run("icl --model tiny --task task.json --quiet").out.find("\033[") == std::string::npos);
  for (const char* flags :
       {"--method attention --layers all", "--method embedding", "--method embedding --embedder tiny",
        "--method random:seed=3", "--kernel cosine:center --lambda 0.1", "--projection 8",
        "--method surprisal --detect-noise", "--position label", "--position mean", "--position auto",
        "--targets embedding", "--layers all", "--self-lambda 1e-6"}) {
    CAPTURE(flags);
    const auto result = folder.run(fmt::format("icl --model tiny --task task.json --quiet --json {}", flags));
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    const auto json = Json::parse(result.out);
    CHECK((json["queries"][0]["test"].is_null() ? json["self"] : json["queries"][0]["test"]).size() == 6);
  }
}

TEST_CASE("many tasks in one run go on where they were, and only what changed is made again") {
  const test::IclFolder folder;
  auto first = test::icl_task(), second = test::icl_task();
  first["name"] = "first";
  second["name"] = "second";
  second["queries"][0]["input"] = "another";
  folder.write("tasks.jsonl", first.dump() + "\n" + second.dump() + "\n");
  const std::string command = "icl --model tiny --tasks tasks.jsonl --quiet --out run";
  REQUIRE(folder.run(command).status == 0);
  const auto before = fs::last_write_time(folder / "run/first/icl.json");
  CHECK(folder.json("run/second/icl.json")["queries"][0]["input"] == "another");
  const auto kept = folder.read("run/second/icl.json");
  fs::remove(folder / "run/second/icl.json");
  REQUIRE(folder.run(command).status == 0);
  CHECK(fs::last_write_time(folder / "run/first/icl.json") == before);
  CHECK(folder.read("run/second/icl.json") == kept);
  REQUIRE(folder.run(command + " --lambda 2").status == 0);
  CHECK(folder.json("run/first/icl.json")["options"]["lambda"] == "2");
  CHECK(folder.run(command + " --threads 1 --batch-size 1").status == 0);

  // what a tokenizer follows is a part of what a result rests on
  const auto newer = fs::last_write_time(folder / "run/first/icl.json");
  folder.write("tiny/tokenizer_config.json", R"({"add_prefix_space": false})");
  REQUIRE(folder.run(command).status == 0);
  CHECK(fs::last_write_time(folder / "run/first/icl.json") != newer);
  fs::remove(folder / "tiny/tokenizer_config.json");

  // warnings and the status that they decide are a part of the result
  second["demonstrations"][5] = second["demonstrations"][3];
  folder.write("tasks.jsonl", first.dump() + "\n" + second.dump() + "\n");
  const auto made = folder.run(command + " --strict");
  CHECK(made.status == 4);
  CHECK(made.err.find("task second: demonstrations 3 and 5 are the same") != std::string::npos);
  const auto warnings = folder.json("run/run.json")["warnings"];
  const auto found = folder.run(command + " --strict");
  CHECK(found.status == 4);
  CHECK(found.err == made.err);
  CHECK(folder.json("run/run.json")["warnings"] == warnings);
}

TEST_SUITE_END();
