// whence icl through the binary, with a tiny random Llama that speaks a real tokenizer's tokens.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "support/near.h"
#include "support/tool.h"
#include "whence/core/files.h"
#include "whence/core/output.h"
#include "whence/models/language_model.h"
#include "whence/models/model.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
using Json = nlohmann::json;
namespace fs = std::filesystem;

namespace {

void write_model(const ToolFolder& folder) {
  fs::create_directories(folder / "tiny");
  fs::copy_file(fs::path(WHENCE_TESTS) / "text/tokenizers/llama3.json", folder / "tiny/tokenizer.json");
  folder.write("tiny/config.json", Json{{"model_type", "llama"},
                                        {"vocab_size", 700},
                                        {"hidden_size", 16},
                                        {"intermediate_size", 24},
                                        {"num_hidden_layers", 3},
                                        {"num_attention_heads", 2},
                                        {"rms_norm_eps", 1e-5},
                                        {"hidden_act", "silu"},
                                        {"max_position_embeddings", 300}}
                                       .dump());
  const auto model = create<Model>("transformer:directory=" + (folder / "tiny").string());
  Random random(3);
  const auto theta = model->initial({}, 0, random);
  fs::create_directories(folder / "made");
  dynamic_cast<const LanguageModel&>(*model).write_directory(folder / "made", theta.to(at::kFloat, at::kCPU), {});
  for (const auto& entry : fs::directory_iterator(folder / "made")) {
    fs::copy_file(entry.path(), folder / ("tiny/" + entry.path().filename().string()),
                  fs::copy_options::overwrite_existing);
  }
}

Json task() {
  Json demonstrations = Json::array();
  for (const char* text : {"good film", "dull film", "bright", "sad end", "happy end", "grey"}) {
    demonstrations.push_back({{"input", text}, {"output", demonstrations.size() % 2 == 0 ? "positive" : "very bad"}});
  }
  return {{"demonstrations", demonstrations},
          {"queries",
           {{{"input", "a film"}, {"output", "positive"}},
            {{"input", "the end"}, {"output", "very bad"}},
            {{"input", "x"}}}}};
}

/// Two kinds of input, of which demonstrations 2 and 7 have the other's output.
Json mislabelled() {
  Json demonstrations = Json::array();
  for (int i = 0; i < 12; ++i) {
    const bool good = i % 2 == 0, wrong = i == 2 || i == 7;
    demonstrations.push_back(
        {{"input", fmt::format("{} {}", good ? "good film" : "sad end", i)}, {"output", good != wrong ? "yes" : "no"}});
  }
  return {{"demonstrations", demonstrations},
          {"queries", {{{"input", "good film 20"}, {"output", "yes"}}, {{"input", "sad end 21"}, {"output", "no"}}}},
          {"template", "{input}: {output}"},
          {"separator", "\n"}};
}

std::vector<double> numbers(const Json& list) { return list.get<std::vector<double>>(); }

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("icl scores the demonstrations, verifies them and writes what they are good for") {
  const ToolFolder folder;
  write_model(folder);
  folder.write("task.json", task().dump());
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
  const auto self = numbers(json["self"]);
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
    CHECK(curated["demonstrations"][k] == task()["demonstrations"][order[k]]);
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

TEST_CASE("without a flag icl ends with what to drop, and says how it came to it") {
  const ToolFolder folder;
  write_model(folder);
  auto asked = mislabelled();
  asked["queries"] = Json::array();
  for (const int i : {0, 1, 3, 6}) {
    asked["queries"].push_back(asked["demonstrations"][static_cast<std::size_t>(i)]);
  }
  folder.write("task.json", asked.dump());
  const auto result = folder.run("icl --model tiny --task task.json --quiet --out run");
  CAPTURE(result.out);
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto json = folder.json("run/icl.json");
  REQUIRE(json["drop"].size() == 2);
  std::vector<std::string> told;
  std::vector<int> numbers_dropped;
  for (const auto& drop : json["drop"]) {
    const auto i = drop["demonstration"].get<std::size_t>();
    numbers_dropped.push_back(static_cast<int>(i));
    told.push_back(fmt::format("{} ({:+.3g})", i, json["self"][i].get<double>()));
    CHECK(drop["output"] == json["demonstrations"][i]["output"]);
    CHECK(drop["instead"] == (drop["output"] == "yes" ? "no" : "yes"));
  }
  CHECK(json["drop"][0]["self"] >= json["drop"][1]["self"]);
  CHECK(json["verdict"] ==
        fmt::format("2 of 12 demonstrations look wrong: drop {}, {}.", numbers_dropped[0], numbers_dropped[1]));
  std::sort(numbers_dropped.begin(), numbers_dropped.end());
  CHECK(numbers_dropped == std::vector<int>{2, 7});
  CHECK(result.out.ends_with(fmt::format("the prompt without them: run/kept.json\ndrop: {}, {}\n", told[0], told[1])));
  CHECK(folder.json("run/kept.json")["demonstrations"].size() == 10);
  CHECK(folder.read("run/kept.txt").find("film 2:") == std::string::npos);
  CHECK(folder.read("run/kept.txt").find("film 4:") != std::string::npos);
  // every query says what the model answers, how sure it is and what was expected
  REQUIRE_FALSE(json["queries"].empty());
  for (const auto& query : json["queries"]) {
    const double p = query["probability"], expected = query["explained-probability"];
    const bool right = query["prediction"] == query["output"];
    CHECK(p >= 0.5);
    CHECK(p + (right ? 0 : expected) == doctest::Approx(right ? expected : 1));
    CHECK(result.out.find(fmt::format("→ {}, {:.0f} % ({})", query["prediction"].get<std::string>(), 100 * p,
                                      right ? "as expected"
                                            : fmt::format("expected {}, {:.0f} %", query["output"].get<std::string>(),
                                                          100 * expected))) != std::string::npos);
  }
  // the options are those that were measured, and icl.json says that nobody asked for them
  const auto& options = json["options"];
  CHECK(options["kernel"] == "cosine");
  CHECK(options["lambda"] == "0.1");
  CHECK(options["self-kernel"] == "cosine:center");
  CHECK(options["self-ridge-lambda"] == "5");
  CHECK(options["regulariser"] == "false");
  CHECK(options["preset"].is_null());
  CHECK(json["position"] == "mean");
  CHECK(json["layers"] == Json{1, 2, 3});
  CHECK(json["self-by"] == "ridge");
  const auto defaults = options["defaults"].get<std::vector<std::string>>();
  CHECK(std::count(defaults.begin(), defaults.end(), "kernel") == 1);
  const auto given = Json::parse(folder.run("icl --model tiny --task task.json --quiet --json --kernel rbf").out);
  CHECK(given["options"]["defaults"].dump().find("kernel") == std::string::npos);
  CHECK(!given["options"].contains("self-kernel"));  // one regression for all scores
  const auto both =
      Json::parse(folder.run("icl --model tiny --task task.json --quiet --json --kernel cosine:center --lambda 5").out);
  CHECK(both["self"] == json["self"]);
  CHECK(both["queries"][0]["test"] != json["queries"][0]["test"]);

  auto right = mislabelled();
  right["demonstrations"][2]["output"] = "yes";
  right["demonstrations"][7]["output"] = "no";
  folder.write("right.json", right.dump());
  CHECK(folder.run("icl --model tiny --task right.json --quiet").out.ends_with("drop: none\n"));
  auto random = mislabelled();
  for (std::size_t i = 0; i < 12; ++i) {
    random["demonstrations"][i]["output"] = i % 4 < 2 ? "yes" : "no";
  }
  folder.write("random.json", random.dump());
  const auto thin = folder.run("icl --model tiny --task random.json --quiet");
  CHECK(thin.out.find(
            "too thin to call any wrong; give more demonstrations, or ask the model with --verify\ndrop: none\n") !=
        std::string::npos);
}

TEST_CASE("--preset detail is the paper's, flag for flag, and says where it turns scores upside down") {
  const ToolFolder folder;
  write_model(folder);
  folder.write("task.json", mislabelled().dump());
  const auto icl = [&](const std::string& flags) {
    const auto result = folder.run("icl --model tiny --task task.json --quiet --json " + flags);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out);
  };
  const auto preset = icl("--preset detail");
  const auto said =
      icl("--method ridge:regulariser=true --kernel dot --lambda 1 --projection 0 --position column --layers 1,2");
  for (const char* key : {"queries", "self", "mean-test", "layers", "position", "drop"}) {
    CHECK(preset[key] == said[key]);
  }
  CHECK(preset["options"]["preset"] == "detail");
  CHECK(preset["options"]["defaults"].empty());
  CHECK(icl("--preset detail --lambda 3 --position mean")["position"] == "mean");
  const auto warned = [&](const std::string& flags, const char* part) {
    return icl(flags)["warnings"].dump().find(part) != std::string::npos;
  };
  constexpr auto kSelf =
      "self: the regulariser's term outweighs the residual (rank correlation with the scores without";
  constexpr auto kTest =
      "test: the regulariser's term outweighs the residual (rank correlation with the scores without";
  CHECK(warned("--preset detail", kSelf));
  CHECK(warned("--preset detail", kTest));
  CHECK_FALSE(warned("--preset detail --self-lambda 1e-9", kSelf));
  CHECK_FALSE(warned("", "outweighs"));
  check_fails(folder.run("icl --model tiny --task task.json --preset details"), 1, "did you mean \"detail\"?");
  check_fails(folder.run("icl --model tiny --task task.json --preset detail --method ridge:lambda=2"), 2,
              "--preset detail and --method ridge:lambda=2 both say how");
  check_fails(folder.run("icl --model tiny --task task.json --preset detail --method random"), 2,
              "--preset is for --method ridge, not random");
}

TEST_CASE("where outputs do not repeat, self scores are surprisals behind other demonstrations") {
  const ToolFolder folder;
  write_model(folder);
  Json pairs = Json::array();
  for (const char* word : {"go", "take", "see", "come", "give", "eat"}) {
    pairs.push_back({{"input", word}, {"output", std::string(word) + "ed"}});
  }
  folder.write("task.json",
               Json{{"demonstrations", pairs}, {"queries", {{{"input", "do"}, {"output", "doed"}}}}}.dump());
  const auto run = [&](const std::string& flags) {
    const auto result = folder.run("icl --model tiny --task task.json --quiet --json --dtype float64 " + flags);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out);
  };
  const auto json = run("");
  CHECK(json["closed"] == false);
  CHECK(json["self-by"] == "surprisal");
  CHECK(json["advice"]["reason"].get<std::string>().find("nats in the median") != std::string::npos);
  CHECK(numbers(json["queries"][0]["test"]).size() == 6);
  CHECK(json["self"] == run("--method surprisal:center=false")["self"]);
  CHECK(json["self"] != run("--method ridge")["self"]);
  CHECK(run("--kernel cosine")["self-by"] == "ridge");
  CHECK(run("--method ridge")["drop"].is_null());
  CHECK(json["queries"][0]["probability"].get<double>() > 0);
}

TEST_CASE("icl shades demonstrations where the terminal shows colours, and other methods score too") {
  const ToolFolder folder;
  write_model(folder);
  folder.write("task.json", task().dump());
  const auto shaded = folder.run("icl --model tiny --task task.json --quiet", "export CLICOLOR_FORCE=1");
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
    CHECK(numbers(json["queries"][0]["test"].is_null() ? json["self"] : json["queries"][0]["test"]).size() == 6);
  }
}

TEST_CASE("a validation set chooses the layer and the position") {
  const ToolFolder folder;
  write_model(folder);
  auto chosen = task();
  chosen["validation"] = chosen["demonstrations"];  // what a layer near the words tells best is up to the model
  folder.write("task.json", chosen.dump());
  auto asked = task();
  asked["queries"] = chosen["validation"];
  folder.write("asked.json", asked.dump());
  const auto icl = [&](const std::string& flags) {
    const auto result = folder.run("icl --model tiny --quiet --json --task " + flags);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return Json::parse(result.out);
  };
  // it is the one whose ridge view has the least loss on the validation set
  std::map<std::pair<std::string, int>, double> losses;
  for (const char* position : {"column", "mean"}) {
    for (int layer = 0; layer <= 3; ++layer) {
      losses[{position, layer}] =
          icl(fmt::format("asked.json --layers {} --position {}", layer, position))["ridge-loss"].get<double>();
    }
  }
  const auto least = [&](const auto& of) {
    std::pair<std::string, int> best;
    double loss = INFINITY;
    for (const auto& [reading, found] : losses) {
      if (of(reading) && found < loss) {
        loss = found;
        best = reading;
      }
    }
    return best;
  };
  const auto check = [&](const Json& json, const std::pair<std::string, int>& best) {
    CHECK(json["position"] == best.first);
    CHECK(json["layers"] == Json{best.second});
  };
  check(icl("task.json --layers auto"), least([](const auto& reading) { return reading.first == "mean"; }));
  check(icl("task.json --position auto --layers auto"), least([](const auto&) { return true; }));
  for (int layer = 0; layer <= 3; ++layer) {
    check(icl(fmt::format("task.json --position auto --layers {}", layer)),
          least([&](const auto& reading) { return reading.second == layer; }));
  }
  const auto unchosen = icl("asked.json --position auto --layers auto");  // nothing to choose by
  CHECK(unchosen["position"] == "mean");
  CHECK(unchosen["layers"] == Json{1, 2, 3});  // half, three quarters and the end of 3 blocks
}

TEST_CASE("many tasks in one run go on where they were, and only what changed is made again") {
  const ToolFolder folder;
  write_model(folder);
  auto first = task(), second = task();
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

TEST_CASE("icl refuses what it cannot do in one line") {
  const ToolFolder folder;
  write_model(folder);
  folder.write("task.json", task().dump());
  const auto fails = [&](const std::string& arguments, int status, const std::string& part) {
    CAPTURE(arguments);
    check_fails(folder.run("icl --quiet " + arguments), status, part);
  };
  fails("--model tiny", 2, "one of --task FILE and --tasks PATH is needed");
  fails("--task task.json", 2, "--model is missing");
  fails("--model tiny --tasks task.json", 2, "--out is missing");
  fails("--model tiny --task absent.json", 1, "absent.json");
  fails("--model absent --task task.json", 1, "absent/config.json");
  fails("--model tiny --task task.json --layers 4", 2, "expected upper, auto, all, or numbers from 0 to 3");
  fails("--model tiny --task task.json --layers 1,1", 2, "that differ");
  fails("--model tiny --task task.json --lambda 0", 1, "ridge: option lambda = 0, expected > 0");
  fails("--model tiny --task task.json --kernel cosin", 1, "did you mean \"cosine\"?");
  fails("--model tiny --task task.json --method rigde", 1, "did you mean \"ridge\"?");
  fails("--model tiny --task task.json --method random --lambda 2", 2, "--lambda is for --method ridge, not random");
  fails("--model tiny --task task.json --position colunm", 1, "did you mean \"column\"?");
  fails("--model tiny --task task.json --reorder up", 1, "unknown reordering");
  fails("--model tiny --task task.json --curate 7", 1, "demonstrations to keep = 7, expected 1 .. 6");
  fails("--model tiny --task task.json --method surprisal --curate 2", 1, "method surprisal has no test scores");
  fails("--model tiny --task task.json --method attention --detect-noise", 1, "method attention has no self scores");
  fails("--model tiny --task task.json --out task.json", 1, "cannot make the folder task.json: Not a directory");
  fs::create_directories(folder / "busy");
  {
    const auto lock = OutputLock::in(folder / "busy");
    fails("--model tiny --task task.json --out busy", 1, "busy is being written by process ");
  }
  fails("--model tiny --task task.json --select 2", 2, "--select K and --pool FILE go together");
  auto bad = task();
  bad["demonstrations"] = Json::array();
  folder.write("bad.json", bad.dump());
  fails("--model absent --task bad.json", 1, "bad.json: no demonstrations, expected at least one: {\"demonstrations\"");
  bad = task();
  bad["demonstrations"][3].erase("output");
  folder.write("bad.json", bad.dump());
  fails("--model tiny --task bad.json", 1, "demonstrations[3]: the key \"output\" is missing");
  folder.write("bad.json", task()["demonstrations"].dump());
  fails("--model tiny --task bad.json", 1, "examples by themselves, expected a task that says which are asked");
  folder.write("bad.json", "{\"queries\": [{\"input\": \"caf\xe9\"}]}");
  fails("--model tiny --task bad.json", 1, "UTF-8");
  for (const char* file : {"tokenizer.json", "model.safetensors", "config.json"}) {
    fs::create_directories(folder / "part");
    fs::copy(folder / "tiny", folder / "part", fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    fs::remove(folder / (std::string("part/") + file));
    fails("--model part --task task.json", 1, file);
  }
  bad = task();
  bad["template"] = "no places";
  folder.write("bad.json", bad.dump());
  fails("--model tiny --task bad.json", 1, "has no placeholder");
  bad = task();
  bad["demonstrations"][0]["output"] = "";
  folder.write("bad.json", bad.dump());
  fails("--model tiny --task bad.json", 1, "demonstrations[0]: output = \"\" is blank");
  bad = task();
  for (int i = 0; i < 60; ++i) {
    bad["demonstrations"].push_back({{"input", std::to_string(i)}, {"output", "positive"}});
  }
  folder.write("bad.json", bad.dump());
  fails("--model tiny --task bad.json", 1,
        "expected at most the model's context of 300: give shorter demonstrations, or fewer (the");
  fs::create_directories(folder / "many");
  folder.write("many/...json", task().dump());
  fails("--model tiny --tasks many --out run", 1, "many/...json: name, taken from the file's, = \"..\"");
  CHECK(!fs::exists(folder / "run"));

  // what can be done all the same is warned of, and --strict says so
  auto odd = task();
  odd["queries"][0]["output"] = "postive";
  odd["demonstrations"][5] = odd["demonstrations"][3];
  folder.write("odd.json", odd.dump());
  const auto warned = folder.run("icl --model tiny --task odd.json --quiet --json --strict");
  CHECK(warned.status == 4);
  CHECK(warned.err.find("demonstrations 3 and 5 are the same") != std::string::npos);
  CHECK(warned.err.find("query 0 has no scores: its unknown output") != std::string::npos);
  CHECK(warned.err.find("did you mean") != std::string::npos);
  CHECK(Json::parse(warned.out)["queries"][0]["test"][0].is_null());
  auto one_class = task();
  for (auto& demonstration : one_class["demonstrations"]) {
    demonstration["output"] = "positive";
  }
  folder.write("one.json", one_class.dump());
  const auto lonely = folder.run("icl --model tiny --task one.json --quiet --json");
  CHECK(lonely.status == 0);
  CHECK(lonely.err.find("every demonstration's output is") != std::string::npos);
  auto single = task();
  single["demonstrations"] = {single["demonstrations"][0]};
  folder.write("single.json", single.dump());
  const auto alone = folder.run("icl --model tiny --task single.json --quiet --verify");
  CHECK(alone.status == 0);
  CHECK(alone.err.find("1 demonstration: scores compare demonstrations with each other; --verify asks") !=
        std::string::npos);
  auto doubtful = task();
  doubtful["demonstrations"][4]["input"] = "good film";
  doubtful["demonstrations"][4]["output"] = "very bad";
  doubtful["queries"][1]["input"] = "sad end";
  folder.write("doubtful.json", doubtful.dump());
  const auto doubts = folder.run("icl --model tiny --task doubtful.json --quiet").err;
  CHECK(doubts.find(
            "demonstrations 0 and 4 have the same input but the outputs \"positive\" and \"very bad\": one of them is "
            "wrong") != std::string::npos);
  CHECK(doubts.find("query 1 has the input of demonstration 3: the prompt holds its answer") != std::string::npos);
}

TEST_SUITE_END();
