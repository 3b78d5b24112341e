// What whence icl does where it was not told how, and what presets and validation sets tell it.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "tools/icl.h"

using namespace whence;
using test::check_fails;
using Json = nlohmann::json;

TEST_SUITE_BEGIN("tools");

TEST_CASE("without a flag icl ends with what to drop, and says how it came to it") {
  const test::IclFolder folder;
  auto asked = test::mislabelled();
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

  auto right = test::mislabelled();
  right["demonstrations"][2]["output"] = "yes";
  right["demonstrations"][7]["output"] = "no";
  folder.write("right.json", right.dump());
  CHECK(folder.run("icl --model tiny --task right.json --quiet").out.ends_with("drop: none\n"));
  auto random = test::mislabelled();
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
  const test::IclFolder folder;
  folder.write("task.json", test::mislabelled().dump());
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
  const test::IclFolder folder;
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
  CHECK(json["queries"][0]["test"].size() == 6);
  CHECK(json["self"] == run("--method surprisal:center=false")["self"]);
  CHECK(json["self"] != run("--method ridge")["self"]);
  CHECK(run("--kernel cosine")["self-by"] == "ridge");
  CHECK(run("--method ridge")["drop"].is_null());
  CHECK(json["queries"][0]["probability"].get<double>() > 0);
}

TEST_CASE("a validation set chooses the layer and the position") {
  const test::IclFolder folder;
  auto chosen = test::icl_task();
  chosen["validation"] = chosen["demonstrations"];  // what a layer near the words tells best is up to the model
  folder.write("task.json", chosen.dump());
  auto asked = test::icl_task();
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

TEST_SUITE_END();
