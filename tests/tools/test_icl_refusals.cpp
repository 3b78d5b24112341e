// What whence icl refuses and what it warns of, in one line each.
#include "tools/icl.h"
#include "whence/core/output.h"

using namespace whence;
using test::check_fails;
using Json = nlohmann::json;
namespace fs = std::filesystem;

TEST_SUITE_BEGIN("tools");

TEST_CASE("icl refuses what it cannot do in one line") {
  const test::IclFolder folder;
  folder.write("task.json", test::icl_task().dump());
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
  auto bad = test::icl_task();
  bad["demonstrations"] = Json::array();
  folder.write("bad.json", bad.dump());
  fails("--model absent --task bad.json", 1, "bad.json: no demonstrations, expected at least one: {\"demonstrations\"");
  bad = test::icl_task();
  bad["demonstrations"][3].erase("output");
  folder.write("bad.json", bad.dump());
  fails("--model tiny --task bad.json", 1, "demonstrations[3]: the key \"output\" is missing");
  folder.write("bad.json", test::icl_task()["demonstrations"].dump());
  fails("--model tiny --task bad.json", 1, "examples by themselves, expected a task that says which are asked");
  folder.write("bad.json", R"({"demonstrations": [], "queries": [], "queries": []})");
  fails("--model tiny --task bad.json", 1, "bad.json: names \"queries\" twice");
  folder.write("bad.json", "{\"queries\": [{\"input\": \"caf\xe9\"}]}");
  fails("--model tiny --task bad.json", 1, "UTF-8");
  for (const char* file : {"tokenizer.json", "model.safetensors", "config.json"}) {
    fs::create_directories(folder / "part");
    fs::copy(folder / "tiny", folder / "part", fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    fs::remove(folder / (std::string("part/") + file));
    fails("--model part --task task.json", 1, file);
  }
  bad = test::icl_task();
  bad["template"] = "no places";
  folder.write("bad.json", bad.dump());
  fails("--model tiny --task bad.json", 1, "has no placeholder");
  bad = test::icl_task();
  bad["demonstrations"][0]["output"] = "";
  folder.write("bad.json", bad.dump());
  fails("--model tiny --task bad.json", 1, "demonstrations[0]: output = \"\" is blank");
  bad = test::icl_task();
  for (int i = 0; i < 60; ++i) {
    bad["demonstrations"].push_back({{"input", std::to_string(i)}, {"output", "positive"}});
  }
  bad["queries"] = {{{"input", "x"}}, {{"input", "a film that is very much longer than all of the others"}}};
  folder.write("bad.json", bad.dump());
  const auto longest = folder.run("icl --quiet --model tiny --task bad.json").err;
  const std::string few =
      "expected at most the model's context of 300: give shorter demonstrations, or fewer (the first ";
  REQUIRE(longest.find("the prompt of query 1 has ") != std::string::npos);
  REQUIRE(longest.find(few) != std::string::npos);
  auto& demonstrations = bad["demonstrations"];
  demonstrations.erase(demonstrations.begin() + std::stoi(longest.substr(longest.find(few) + few.size())),
                       demonstrations.end());
  folder.write("fits.json", bad.dump());  // by every query
  CHECK(demonstrations.size() > 3);
  CHECK(folder.run("icl --quiet --model tiny --task fits.json").status == 0);
  fs::create_directories(folder / "many");
  folder.write("many/...json", test::icl_task().dump());
  fails("--model tiny --tasks many --out run", 1, "many/...json: name, taken from the file's, = \"..\"");
  CHECK(!fs::exists(folder / "run"));
}

TEST_CASE("icl warns of what can be done all the same, and --strict says so") {
  const test::IclFolder folder;
  auto odd = test::icl_task();
  odd["queries"][0]["output"] = "postive";
  odd["demonstrations"][5] = odd["demonstrations"][3];
  folder.write("odd.json", odd.dump());
  const auto warned = folder.run("icl --model tiny --task odd.json --quiet --json --strict");
  CHECK(warned.status == 4);
  CHECK(warned.err.find("demonstrations 3 and 5 are the same") != std::string::npos);
  CHECK(warned.err.find("query 0 has no scores: its unknown output") != std::string::npos);
  CHECK(warned.err.find("did you mean") != std::string::npos);
  CHECK(Json::parse(warned.out)["queries"][0]["test"][0].is_null());
  auto one_class = test::icl_task();
  for (auto& demonstration : one_class["demonstrations"]) {
    demonstration["output"] = "positive";
  }
  folder.write("one.json", one_class.dump());
  const auto lonely = folder.run("icl --model tiny --task one.json --quiet --json");
  CHECK(lonely.status == 0);
  CHECK(lonely.err.find("every demonstration's output is") != std::string::npos);
  auto single = test::icl_task();
  single["demonstrations"] = nlohmann::json::array({single["demonstrations"][0]});
  folder.write("single.json", single.dump());
  const auto alone = folder.run("icl --model tiny --task single.json --quiet --verify");
  CHECK(alone.status == 0);
  CHECK(alone.err.find("1 demonstration: scores compare demonstrations with each other; --verify asks") !=
        std::string::npos);
  auto doubtful = test::icl_task();
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
