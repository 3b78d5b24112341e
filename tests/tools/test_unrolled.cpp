// `--response unrolled`: influence through the optimizer's own steps, through the binary.
#include "support/contents.h"
#include "support/tool.h"

using namespace whence;
using test::check_fails;
using test::contains;
using test::ToolFolder;

namespace {

constexpr const char* kSteps = "adam:learning-rate=1e-2,batch-size=50,epochs=6";

/// Both stages are trained by a few steps, far from any minimum.
std::string stepping(const ToolFolder& folder) {
  std::string text = folder.pipeline();
  const std::string lbfgs = "lbfgs:max-iterations=2000,tolerance=1e-9";
  for (auto place = text.find(lbfgs); place != text.npos; place = text.find(lbfgs)) {
    text.replace(place, lbfgs.size(), kSteps);
  }
  return text;
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE(
    "--response unrolled: a ranking with its evidence, the best row of a table, refused where no steps were gone") {
  const ToolFolder folder;
  folder.write("steps.toml", stepping(folder));
  REQUIRE(folder.run("train steps.toml --dtype float64 --quiet").status == 0);
  const auto result =
      folder.run("rank steps.toml --stage pretrain --dtype float64 --response unrolled --quiet --out out");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto run = folder.json("out/run.json");
  CHECK(run["stages"]["pretrain"]["unrolled"]["steps"] == 24);
  CHECK(run["stages"]["finetune"]["unrolled"]["steps"] == 12);
  CHECK(run["stages"]["pretrain"]["unrolled"]["replay-difference"].get<double>() < 1e-12);
  CHECK(run["options"]["response"] == "unrolled");
  REQUIRE(folder.run("report out").status == 0);
  CHECK(contains(folder.read("out/report.html"), "training of pretrain gone again"));

  const auto table = folder.run(
      "evaluate steps.toml --stage pretrain --queries test --dtype float64 --quiet --against retraining --examples 12 "
      "--methods unrolled,influence --no-ceiling --out judged");
  CAPTURE(table.err);
  REQUIRE(table.status == 0);
  for (const auto& row : folder.json("judged/evaluation.json")["table"]) {
    if (row["method"] == "unrolled") {
      CHECK(row["pearson"].get<double>() > 0.9);
    }
  }

  const std::string rank = "rank steps.toml --stage pretrain --dtype float64 --quiet --response unrolled ";
  check_fails(folder.run(rank + "--damping 1"), 2, "leave out --damping");
  check_fails(folder.run(rank + "--self"), 2, "--self makes a query of every example");
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet --force").status == 0);
  check_fails(folder.run("rank pipeline.toml --stage pretrain --dtype float64 --quiet --response unrolled"), 1,
              "use sgd, adam or adamw");
}
