// What the program says of its numbers, through the binary.
#include <sstream>

#include "support/tool.h"
#include "whence/attribution/attributor.h"
#include "whence/curvature/curvature.h"
#include "whence/solvers/solver.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::ToolFolder;

TEST_SUITE_BEGIN("tools");

TEST_CASE("--dtype bfloat16 with every method, curvature and solver") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --quiet").status == 0);
  std::vector<std::string> choices;
  for (const auto& method : methods<Attributor>()) {
    if (method.name == "tracin") {  // follows snapshots, which this pipeline keeps none of; no algebra of its own
      continue;
    }
    choices.push_back(fmt::format("--method {} --relative-damping 0.1", method.name));
  }
  for (const auto& curvature : methods<Curvature>()) {
    choices.push_back(fmt::format("--curvature {} --solver auto --relative-damping 0.5", curvature.name));
  }
  std::vector<std::string> solvers{"cg:preconditioner=ekfac", "cg:preconditioner=nystroem"};
  for (const auto& method : methods<Solver>()) {
    solvers.emplace_back(method.name);
  }
  for (const auto& solver : solvers) {
    const auto family = create<Solver>(solver)->family().value_or(CurvatureFamily::kGaussNewton);
    choices.push_back(fmt::format("--curvature {} --solver {} --relative-damping 0.5", to_string(family), solver));
  }
  for (const auto& choice : choices) {
    CAPTURE(choice);
    const auto result = folder.run(fmt::format(
        "score pipeline.toml --stage finetune --queries test --dtype bfloat16 --quiet --out result {}", choice));
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    CHECK(at::isfinite(read_scores(folder / "result").stages.front().scores).all().item<bool>());
    std::filesystem::remove_all(folder / "result");
  }
}

TEST_CASE("a solve by ekfac tells the residual of the Gauss-Newton matrix, or says that it is of its own factors") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --quiet").status == 0);
  for (const char* curvature : {"ekfac", "kfac", "diagonal"}) {
    CAPTURE(curvature);
    const auto result =
        folder.run(fmt::format("score pipeline.toml --stage pretrain --queries test --quiet --out "
                               "result --curvature {} --solver ekfac --relative-damping 0.1",
                               curvature));
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    const auto run = folder.json("result/run.json");
    for (const char* stage : {"pretrain", "finetune"}) {
      const auto& told = run["stages"][stage];
      CHECK(told["residual-of"] == "gauss-newton");
      CHECK(told["largest-relative-residual"].get<double>() > 1e-3);
      CHECK(told["largest-relative-residual"].get<double>() < 10);
      CHECK(told["approximate-solves"] == 5);
      CHECK(told["solves"][0]["residual-of"] == "gauss-newton");
      CHECK(told["solves"][4]["residual-of"] == fmt::format("{}'s own factors", curvature));
      CHECK(told["solves"][4]["relative-residual"].get<double>() < 1e-3);
      CHECK(told["solves"][4]["termination"] == "approximate");
    }
    std::filesystem::remove_all(folder / "result");
  }
}

TEST_CASE("a column that float32 rounds away is said, and is a reason for --strict; standardised it is none") {
  const ToolFolder folder;
  std::string rows = "t,b,label\n";
  const auto b = Random(4).normal({40});
  for (int i = 0; i < 40; ++i) {  // milliseconds since 1970
    const double value = b[i].item<double>();
    rows += fmt::format("{},{:.3f},{}\n", 1700000000000 + i, value, value + 0.05 * i > 1 ? 1 : 0);
  }
  folder.write("rows.csv", rows);
  const auto run = [&](const std::string& name, const std::string& key) {
    folder.write(name + ".toml", fmt::format(R"(seed = 1
[model]
spec = "linear"
[[stage]]
name = "fit"
train = {{ format = "csv", file = "rows.csv", label = "label"{1} }}
weight-decay = 1e-2
checkpoint = "run/{0}.safetensors"
[queries.test]
data = {{ format = "csv", file = "rows.csv", label = "label" }}
)",
                                             name, key));
    const auto trained = folder.run(fmt::format("train {}.toml --quiet", name));
    CHECK((trained.err.find("differs between examples by 39") != std::string::npos) == !key.empty());
    return folder.run(
        fmt::format("rank {0}.toml --stage fit --queries test --curvature gauss-newton --damping 1e-3 --solver direct "
                    "--strict --quiet --limit-queries 1 --out {0}",
                    name));
  };
  const auto raw = run("raw", ", standardize = false");
  CAPTURE(raw.err);
  CHECK(raw.status == 4);
  CHECK(raw.err.find("column t goes up to 1.7e+12 and differs between examples by 39") != std::string::npos);
  CHECK(raw.err.find("subtract its mean (a table: standardize = true)") != std::string::npos);
  const auto fine = run("fine", "");
  CAPTURE(fine.err);
  CHECK(fine.status == 0);
  CHECK(fine.err.find("differs between examples") == std::string::npos);
}

TEST_CASE("a row that a regression leans on is named, with what leaving it out really does") {
  const ToolFolder folder;
  auto draws = Random(6);
  const auto x = draws.normal({60, 2}), noise = draws.normal({60});
  std::string rows = "a,b,price\n", queries = "a,b,price\n8,1,15\n0.2,0.1,0.5\n";
  for (int i = 0; i < 60; ++i) {
    const double a = i == 7 ? 25 : x[i][0].item<double>(), b = i == 7 ? 3 : x[i][1].item<double>();
    rows += fmt::format("{:.5f},{:.5f},{:.5f}\n", a, b, i == 7 ? 10 : 2 * a - b + 0.3 * noise[i].item<double>());
  }
  folder.write("rows.csv", rows);
  folder.write("queries.csv", queries);
  folder.write("fit.toml", R"(seed = 1
[model]
spec = "linear"
[[stage]]
name = "fit"
train = { format = "csv", file = "rows.csv", label = "price", standardize = false }
loss = "squared-error"
weight-decay = 1e-6
optimizer = "lbfgs:tolerance=1e-10"
checkpoint = "run/fit.safetensors"
[queries.test]
data = { format = "csv", file = "queries.csv", label = "price" }
)");
  REQUIRE(folder.run("train fit.toml --dtype float64").status == 0);
  const auto ranked = folder.run("rank fit.toml --dtype float64 --out out --strict");
  CAPTURE(ranked.err);
  CAPTURE(ranked.out);
  CHECK(ranked.status == 0);
  CHECK(ranked.err.find("stage fit: the fit leans on example 7 (leverage 0.9") != std::string::npos);
  CHECK(ranked.out.find("with care: the fit at fit leans on example 7") != std::string::npos);
  const auto told = folder.json("out/run.json")["stages"]["fit"]["leverages"][0];
  CHECK(told["example"] == 7);
  CHECK(told["query"] == 0);
  CHECK(told["from-below"] == false);
  // the truth: the same fit without the row
  std::string without;
  std::istringstream lines(rows);
  int number = -1;
  for (std::string line; std::getline(lines, line); ++number) {
    without += number == 7 ? "" : line + "\n";
  }
  folder.write("without.csv", without);
  auto toml = folder.read("fit.toml");
  toml.replace(toml.find("rows.csv"), 8, "without.csv");
  toml.replace(toml.find("run/fit"), 7, "run/out");
  folder.write("without.toml", toml);
  REQUIRE(folder.run("train without.toml --dtype float64").status == 0);
  REQUIRE(folder.run("rank without.toml --dtype float64 --out out2").status == 0);
  const auto measured = [&](const std::string& name) {
    const auto text = folder.read(name + "/ranking.jsonl");
    return nlohmann::json::parse(text.substr(0, text.find('\n')))["measurement"].get<double>();
  };
  const double truth = measured("out2") - measured("out"), first = told["removal"].get<double>();
  MESSAGE("first order ", first, ", second ", told["second-order-removal"].get<double>(), ", trained without ", truth);
  CHECK(told["second-order-removal"].get<double>() == doctest::Approx(truth).epsilon(1e-3));
  CHECK(std::abs(truth) > 3 * std::abs(first));
  const auto own = folder.run("rank fit.toml --dtype float64 --self --out self");
  CAPTURE(own.err);
  CHECK(own.status == 0);
  CHECK(own.err.find("the fit leans on example 7") != std::string::npos);
}

TEST_CASE("inputs far out of scale: --self says that the removals it tells cannot be") {
  const ToolFolder folder;
  auto draws = Random(5);
  ParameterSet tensors;
  tensors.add("inputs", draws.normal({60, 4}) * 100 - 3e5);
  tensors.add("targets", draws.uniform({60}, 0, 3).floor().to(at::kLong));
  write_safetensors(folder / "far.safetensors", tensors);
  folder.write("far.toml", R"(seed = 1
[model]
spec = "mlp:widths=8,activation=relu"
[[stage]]
name = "fit"
train = { format = "safetensors", file = "far.safetensors" }
optimizer = "adam:learning-rate=1e-3,epochs=1"
checkpoint = "run/far.safetensors"
[queries.test]
data = { format = "safetensors", file = "far.safetensors" }
)");
  REQUIRE(folder.run("train far.toml").status == 0);
  for (const char* command : {"rank far.toml --self", "score far.toml --self", "score far.toml"}) {
    CAPTURE(command);
    const auto result = folder.run(fmt::format("{} --curvature gauss-newton --damping 1e-9 --out out", command));
    CAPTURE(result.err);
    CHECK(result.status == 0);
    CHECK(result.err.find("a removal is predicted that cannot be") != std::string::npos);
    CHECK(folder.json("out/run.json")["verdict"].get<std::string>().starts_with("cannot be trusted"));
    std::filesystem::remove_all(folder / "out");
  }
  // the one damping that is named, twice at most, makes removals possible
  std::string flags = "--relative-damping 1";
  for (int i = 0; i < 2; ++i) {
    const auto result = folder.run(fmt::format("score far.toml --curvature gauss-newton {} --out out", flags));
    REQUIRE(result.status == 0);
    const auto run = folder.json("out/run.json");
    const auto stage = run["stages"]["fit"];
    std::filesystem::remove_all(folder / "out");
    if (!stage.contains("more-damping")) {
      break;
    }
    REQUIRE(i == 0);
    flags = stage["more-damping"].get<std::string>();
    CHECK(result.err.find("; type " + flags + "\n") != std::string::npos);
    CHECK(run["verdict"].get<std::string>().find("; type " + flags) != std::string::npos);
  }
}

TEST_SUITE_END();
