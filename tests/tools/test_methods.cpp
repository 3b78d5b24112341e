// The attribution methods, normalizations and plans as the tool gives them.
#include "support/near.h"
#include "support/stale_warning.h"
#include "support/tool.h"
#include "whence/curvature/curvature.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

/// A folder in which both stages are trained by adam, the last with snapshots.
void train_with_snapshots(const ToolFolder& folder) {
  auto text = folder.pipeline("lbfgs:max-iterations=2000,tolerance=1e-9", "adam:epochs=10,learning-rate=0.01");
  const std::string old = "optimizer = \"lbfgs:max-iterations=2000,tolerance=1e-9\"";
  text.replace(text.find(old), old.size(), "optimizer = \"adam:epochs=12,learning-rate=0.01\"\nsnapshots = 3");
  folder.write("pipeline.toml", text);
  const auto result = folder.run("train pipeline.toml --quiet");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("every method ranks, normalized or not, and run.json says how") {
  const ToolFolder folder;
  train_with_snapshots(folder);
  CHECK(fs::exists(folder / "run/finetune.snapshot-3.safetensors"));
  const std::string base = "rank pipeline.toml --stage finetune --queries test --quiet ";
  for (const std::string method : {"tracin", "trak:dimension=32", "logra:rank=3", "rep-sim", "random", "grad-cos"}) {
    CAPTURE(method);
    const auto result = folder.run(base + "--strict --out result-" + method.substr(0, 4) + " --method " + method);
    CAPTURE(result.err);
    CHECK(result.status == 0);  // no minimum is assumed, so none is asked for
    CHECK(result.out.find("helpful") != std::string::npos);
  }
  REQUIRE(folder.run(base + "--method grad-dot --normalize cosine --out cosine").status == 0);
  CHECK(folder.json("cosine/run.json")["options"]["normalize"] == "cosine");
  CHECK(
      at::equal(read_scores(folder / "cosine").stages[0].scores, read_scores(folder / "result-grad").stages[0].scores));
  CHECK_FALSE(folder.json("cosine/run.json")["stages"]["finetune"].contains("gradient-norm"));  // nobody asks for it
  CHECK(folder.run("report cosine").status == 0);
  // another normalization is another run
  const auto other =
      folder.run("score pipeline.toml --stage finetune --queries test --quiet --method grad-dot --out cosine");
  CHECK(other.status == 0);
  CHECK(other.out.find("already complete") == std::string::npos);
  CHECK(folder.json("cosine/run.json")["options"]["normalize"] == "none");
  // snapshots are inputs
  bool found = false;
  const auto run = folder.json("cosine/run.json");
  for (const auto& [name, digest] : run["inputs"].items()) {
    found = found || name.ends_with("finetune.snapshot-2.safetensors");
  }
  CHECK(found);
}

TEST_CASE("what a method cannot do is one line with the remedy") {
  const ToolFolder folder;
  train_with_snapshots(folder);
  const std::string base = "rank pipeline.toml --stage finetune --queries test --quiet ";
  check_fails(folder.run("rank pipeline.toml --stage pretrain --queries test --quiet --method tracin --out no"), 1,
              "stage pretrain: tracin follows training, and no snapshots of it were kept: say snapshots = 10");
  CHECK_FALSE(fs::exists(folder / "no/scores.safetensors"));
  check_fails(folder.run(base + "--method tracing"), 1, "unknown method \"tracing\"; did you mean \"tracin\"?");
  check_fails(folder.run(base + "--method trak:dimension=0"), 1, "trak: option dimension = 0, expected >= 1");
  check_fails(folder.run(base + "--method trak:rank=2"), 1, "trak: unknown option \"rank\"");
  check_fails(folder.run(base + "--method logra:initial=svd"), 1, "logra: option initial = svd, expected random|pca");
  check_fails(folder.run(base + "--method rep-sim:similarity=l2"), 1, "similarity = l2, expected cosine|dot");
  check_fails(folder.run(base + "--method random:seed=-1"), 1, "random: option seed = -1, expected >= 0");
  check_fails(folder.run(base + "--normalize cosin"), 1, "unknown normalization \"cosin\"; did you mean \"cosine\"?");
  check_fails(folder.run(base + "--method rep-sim --normalize cosine"), 1, "normalize = cosine with rep-sim");

  const auto with = [&](const std::string& snapshots, const std::string& part) {
    folder.write("bad.toml", folder.pipeline("weight-decay = 1e-2", "weight-decay = 1e-2\nsnapshots = " + snapshots));
    fs::remove_all(folder / "run");
    check_fails(folder.run("train bad.toml --quiet"), 1, part);
    CHECK_FALSE(fs::exists(folder / "run/pretrain.safetensors"));
  };
  with("-1", "stage pretrain: snapshots = -1, expected a whole number >= 0");
  with("1.5", "stage pretrain: snapshots = 1.5, expected a whole number >= 0");
  with("\"3\"", "snapshots = \"3\", expected a whole number >= 0");
  with("3", "stage pretrain: snapshots = 3 with optimizer lbfgs:");

  train_with_snapshots(folder);
  fs::remove(folder / "run/finetune.snapshot-2.safetensors");
  check_fails(test::less_stale_warning(folder.run(base)), 1,
              "stage finetune: snapshots = 3, but there is no run/finetune.snapshot-2.safetensors: run whence train "
              "pipeline.toml --stage finetune --force");
}

TEST_CASE("a flag that plays no part is told") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --quiet").status == 0);
  const std::string rank = "rank pipeline.toml --stage finetune --queries test ";
  const std::string told = "whence: note: --curvature, --solver play no part: --method grad-dot inverts no curvature";
  const auto result = folder.run(rank + "--method grad-dot --curvature ekfac --solver cg --out out");
  CHECK(result.status == 0);
  CHECK(contains(result.err, told));
  REQUIRE(folder.run(rank + "--curvature ekfac --solver ekfac --relative-damping 1 --out solved").status == 0);
  CHECK_FALSE(contains(folder.run("rank --from solved/run.json --method grad-dot --out other").err, "no part"));
  CHECK(contains(folder.run("evaluate pipeline.toml --scores out --examples 3 --subsets 5 --limit-queries 2").err,
                 "whence: note: --subsets plays no part: --against retraining goes without\n"
                 "whence: note: --limit-queries plays no part: the scores have their own"));
}

TEST_CASE("every curvature, solver and response scores a chain, and run.json says what each left") {
  const ToolFolder folder;
  folder.write("pipeline.toml", folder.pipeline());
  REQUIRE(folder.run("train pipeline.toml --quiet --dtype float64").status == 0);
  const std::string base = "score pipeline.toml --stage pretrain --queries test --quiet --dtype float64 --damping 0.1 ";
  int number = 0;
  const auto run = [&](const std::string& rest) {
    const auto out = "out" + std::to_string(number++);
    const auto result = folder.run(base + rest + " --out " + out);
    CAPTURE(rest);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return folder.json(out + "/run.json");
  };
  for (const auto& method : methods<Curvature>()) {
    const auto told = run(fmt::format("--solver auto --curvature {}", method.name));
    CHECK(told["stages"]["pretrain"]["unconverged-solves"] == 0);
    const auto message = told["stages"]["pretrain"]["solves"][0]["message"].get<std::string>();
    CHECK(message.find("auto picked ") != std::string::npos);
  }
  for (const std::string solver : {"cg", "cg:preconditioner=ekfac", "cg:preconditioner=diagonal", "lanczos", "direct",
                                   "woodbury", "lissa", "nystroem:rank=400"}) {
    const auto told = run("--curvature gauss-newton --solver " + solver)["stages"]["pretrain"];
    CAPTURE(solver);
    CHECK(told["unconverged-solves"] == 0);
    CHECK(told["largest-relative-residual"].get<double>() < 1e-5);
  }
  for (const std::string solver : {"ekfac", "identity"}) {
    const auto told = run("--curvature gauss-newton --solver " + solver)["stages"]["pretrain"];
    CHECK(told["approximate-solves"] == told["solves"].size());
  }
  CHECK(run("--solver cg")["stages"]["pretrain"].contains("smallest-ritz-value"));
  const auto none = run("--curvature gauss-newton --response proximal-bregman");
  CHECK(none["options"]["response"] == "proximal-bregman");
  CHECK(none["warnings"].empty());
  run("--solver lanczos --response segment:time=50,steps=500");

  check_fails(folder.run(base + "--out no --curvature hessian --solver ekfac"), 1, "use --curvature gauss-newton");
  check_fails(folder.run(base + "--out no --curvature hessian --response proximal-bregman"), 1,
              "the curvature is of the family hessian");
  check_fails(folder.run(base + "--out no --response segment"), 1,
              "stage pretrain: response segment needs the sum of its learning rates");
  check_fails(folder.run(base + "--out no --response segment:time=5 --solver cg"), 1,
              "use --solver auto, direct, lanczos or");
  check_fails(folder.run(base + "--out no --response undone"), 1,
              "unknown response \"undone\", known: stationary, proximal-bregman, segment, unrolled");
  check_fails(folder.run(base + "--out no --curvature hessian --solver woodbury"), 1,
              "woodbury: expected a curvature that is J' J");
  CHECK_FALSE(fs::exists(folder / "no/scores.safetensors"));
}

TEST_CASE("segments follow the snapshots of training by adam") {
  const ToolFolder folder;
  train_with_snapshots(folder);
  const auto result = folder.run(
      "score pipeline.toml --stage finetune --queries test --quiet --response segment --solver lanczos --out segments");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(folder.json("segments/run.json")["stages"]["finetune"]["points"] == 3);
}

TEST_CASE("inspect --spectrum estimates the eigenvalues of a trained stage and plots them") {
  const ToolFolder folder;
  folder.write("pipeline.toml", folder.pipeline());
  REQUIRE(folder.run("train pipeline.toml --quiet").status == 0);
  const auto result =
      folder.run("inspect pipeline.toml --spectrum --stage pretrain --probes 3 --steps 20 --plot s.svg --quiet --json");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto told = nlohmann::json::parse(result.out);
  CHECK(told["products"] == 60);
  CHECK(told["largest"].get<double>() > told["mean"].get<double>());
  CHECK(told["mean"].get<double>() > told["smallest"].get<double>());
  CHECK(fs::exists(folder / "s.svg"));
  const std::string again = "inspect pipeline.toml --spectrum --steps 2 --quiet --plot ";
  CHECK(folder.run(again + "s.svg").status == 0);
  const auto kept = folder.read("run/pretrain.safetensors");
  check_fails(folder.run(again + "run/pretrain.safetensors"), 1, "run/pretrain.safetensors is there and is no plot");
  CHECK(folder.read("run/pretrain.safetensors") == kept);
  CHECK(folder.run("inspect pipeline.toml --spectrum --quiet").out.find("largest") != std::string::npos);
  check_fails(folder.run("inspect pipeline.toml --spectrum --steps 0"), 2, "--steps = 0, expected a whole number >= 1");
  check_fails(folder.run("inspect run/pretrain.safetensors --spectrum"), 2, "is no pipeline (.toml)");
}

TEST_CASE("a plan says memory, disk, time and what counts, and writes nothing") {
  const ToolFolder folder;
  train_with_snapshots(folder);
  const auto plan = [&](const std::string& rest) {
    const auto result = folder.run("score pipeline.toml --stage all --queries test --plan --json --out plan " + rest);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    return nlohmann::json::parse(result.out);
  };
  const auto influence = plan("");
  CHECK(influence["queries"] == 5);
  CHECK(influence["stages"].size() == 2);
  CHECK(influence["stages"][0]["attributed-percent"] == 100);
  CHECK(influence["memory-bytes"]["peak"].get<double>() > 0);
  CHECK(influence["seconds"]["high"] == influence["seconds"]["low"]);  // direct, for so few parameters
  const auto cg = plan("--solver cg");
  CHECK(cg["seconds"]["high"].get<double>() > cg["seconds"]["low"].get<double>());
  CHECK(influence["disk-bytes"]["scores"] == 5 * 300 * 4);
  const auto dot = plan("--method grad-dot --dtype float64");
  CHECK(dot["seconds"]["high"] == dot["seconds"]["low"]);
  CHECK(dot["seconds"]["gradient-pass"].size() == 2);
  CHECK(dot["memory-bytes"]["peak"].get<double>() > dot["memory-bytes"]["program"].get<double>());
  CHECK(dot["disk-bytes"]["scores"] == 5 * 300 * 8);
  CHECK(dot["stages"][1]["not-attributed"].empty());
  // the head of an earlier stage is no part of what the query measures
  CHECK(dot["stages"][0]["not-attributed"][0]["name"] == "head.weight");
  CHECK(dot["stages"][0]["attributed-parameters"] == 30);
  CHECK_FALSE(fs::exists(folder / "plan"));

  const auto shown = folder.run("rank pipeline.toml --stage finetune --queries test --plan --method tracin --out plan");
  CHECK(shown.status == 0);
  CHECK(shown.out.find("100.0 % of parameters attributed\n") != std::string::npos);
  CHECK(shown.out.find("memory  ") != std::string::npos);
  CHECK(folder.run("rank pipeline.toml --stage pretrain --queries test --plan --method logra")
            .out.find("% of parameters attributed; not: head.weight (") != std::string::npos);
  CHECK(folder.run("rank pipeline.toml --stage pretrain --queries test --plan --solver direct").status == 0);
  CHECK_FALSE(fs::exists(folder / "plan"));
}

TEST_SUITE_END();
