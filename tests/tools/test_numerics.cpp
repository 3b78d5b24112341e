// What the program says of its numbers, through the binary.
#include "support/tool.h"
#include "whence/attribution/attributor.h"
#include "whence/curvature/curvature.h"
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
  for (const char* solver : {"cg", "cg:preconditioner=ekfac", "cg:preconditioner=nystroem", "lanczos", "lissa",
                             "nystroem", "arnoldi", "identity", "direct", "woodbury", "ekfac", "datainf"}) {
    const auto* curvature = std::string_view(solver) == "datainf" ? "empirical-fisher" : "gauss-newton";
    choices.push_back(fmt::format("--curvature {} --solver {} --relative-damping 0.5", curvature, solver));
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

TEST_SUITE_END();
