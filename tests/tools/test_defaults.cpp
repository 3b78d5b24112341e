// The defaults of rank and score through the binary: what they choose, that a run that goes on keeps it, and what they
// say of predictions that cannot be.
#include "support/near.h"
#include "support/tool.h"
#include "whence/store/result_folder.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

/// A pipeline of one network that is trained by a few steps of Adam, without weight decay.
void write_unfinished(const ToolFolder& folder) {
  folder.write("adam.toml", R"([model]
spec = "mlp:widths=24,activation=relu"
[[stage]]
name = "fit"
train = { format = "safetensors", file = "pretrain.safetensors" }
optimizer = "adam:learning-rate=1e-2,epochs=60,batch-size=20"
checkpoint = "run/adam.safetensors"
[queries.test]
data = { format = "safetensors", file = "queries.safetensors" }
)");
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE(
    "the first command on a network that Adam trained gives an answer, one line says which, and asked again it is "
    "kept") {
  const ToolFolder folder;
  write_unfinished(folder);
  REQUIRE(folder.run("train adam.toml --quiet").status == 0);
  const std::string base = "score adam.toml --stage fit --queries test ";
  auto result = folder.run(base + "--out one");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.err.find(
            "whence: curvature gauss-newton, solver direct, damping 1 x mean eigenvalue or by training time (") !=
        std::string::npos);
  CHECK(result.err.find("the checkpoint is no minimum") != std::string::npos);
  CHECK(result.err.find("warning") == std::string::npos);  // the line has said it
  const auto run = folder.json("one/run.json");
  CHECK(run["warnings"].size() == 1);  // for --strict and for whoever reads it later
  const auto& solved = run["stages"]["fit"];
  CHECK(solved["damping"].get<double>() ==
        doctest::Approx(
            std::max(solved["mean-eigenvalue"].get<double>(), run["options"]["training-damping"][0].get<double>())));

  // what was measured may come out otherwise: a run that goes on takes the choice that it finds
  auto begun = run;
  begun["options"]["relative-damping"] = 0.25;
  begun["options"].erase("training-damping");
  begun.erase("key");
  fs::create_directories(folder / "two/.whence-partial");
  write_record(folder / "two/.whence-partial/run.json", begun);
  REQUIRE(folder.run(base + "--quiet --out two").status == 0);
  CHECK(folder.json("two/run.json")["options"]["relative-damping"] == 0.25);
  REQUIRE(folder.run(base + "--quiet --relative-damping 0.5 --out two").status == 0);
  CHECK(folder.json("two/run.json")["options"]["relative-damping"] == 0.5);
  REQUIRE(folder.run(base + "--quiet --relative-damping 0.7 --out two").status == 0);
  CHECK(folder.json("two/run.json")["options"]["relative-damping"] == 0.7);
  write_record(folder / "two/run.json", begun);
  // but not where something else was asked
  fs::create_directories(folder / "three/.whence-partial");
  write_record(folder / "three/.whence-partial/run.json", begun);
  REQUIRE(folder.run(base + "--quiet --solver cg --out three").status == 0);
  CHECK(folder.json("three/run.json")["options"]["relative-damping"] == 1);

  result = folder.run("score --from two/run.json --quiet --out four");  // repeats what was chosen there
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(folder.json("four/run.json")["options"]["relative-damping"] == 0.25);
  CHECK(folder.read("four/scores.safetensors").size() == folder.read("two/scores.safetensors").size());
  REQUIRE(folder.run("score --from two/run.json --quiet --out five --curvature hessian").status == 0);
  CHECK(folder.json("five/run.json")["options"]["curvature"].get<std::string>().starts_with("hessian"));

  result = folder.run(base + "--plan");
  CHECK(result.status == 0);
  CHECK(result.out.find("curvature gauss-newton, solver auto, damping 1 x mean eigenvalue") != std::string::npos);
  const auto single = folder.run(base + "--plan --batch-size 1").out;  // which changes no choice
  CHECK(single.substr(0, single.find("--curvature")) == result.out.substr(0, result.out.find("--curvature")));
}

TEST_CASE("a removal that cannot be is said, with the damping to type, and the default predicts none") {
  const ToolFolder folder;
  write_unfinished(folder);
  REQUIRE(folder.run("train adam.toml --quiet --dtype float64").status == 0);
  const std::string base = "score adam.toml --stage fit --queries test --dtype float64 --curvature gauss-newton ";
  const auto small = folder.run(base + "--damping 1e-12 --out small");
  CAPTURE(small.err);
  REQUIRE(small.status == 0);
  CHECK(small.err.find("a removal is predicted that cannot be") != std::string::npos);
  CHECK(small.err.find(", one of ") != std::string::npos);  // of examples: rows may be more
  CHECK(small.err.find("; type --damping training\n") != std::string::npos);
  const auto verdict = folder.json("small/run.json")["verdict"].get<std::string>();
  CHECK(verdict.starts_with("cannot be trusted"));
  CHECK(verdict.find("; type --damping training; ") != verdict.npos);
  const auto chosen = folder.run(base + "--out chosen");
  CHECK(chosen.err.find("cannot be") == std::string::npos);
}

TEST_SUITE_END();
