// What results say, in words: the terminal's text, ranking.jsonl, verdicts and the page, of small fixed chains.
#include <algorithm>
#include <cmath>

#include "support/near.h"
#include "support/tool.h"
#include "whence/store/ranking.h"

using namespace whence;
using test::check_fails;
using test::has;
using test::last_line;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

/// A logistic regression on 80 made-up examples, all of them or all but one.
void write_regression(const ToolFolder& folder, const std::string& name, std::int64_t left_out = -1) {
  auto draws = Random(11);
  const auto inputs = draws.normal({80, 3});
  const auto noisy = inputs.sum(1) + 0.8 * draws.normal({80});
  const auto rows = at::arange(80).index({at::arange(80).ne(left_out)});
  ParameterSet tensors;
  tensors.add("inputs", inputs.index_select(0, rows));
  tensors.add("targets", noisy.gt(0).to(at::kLong).index_select(0, rows));
  write_safetensors(folder / (name + ".safetensors"), tensors);
  ParameterSet queries;
  queries.add("inputs", at::tensor({0.4, -0.1, 0.3, -0.6, 0.2, 0.1}, at::kDouble).view({2, 3}));
  queries.add("targets", at::tensor({1L, 1L}));
  write_safetensors(folder / "asked.safetensors", queries);
  folder.write(name + ".toml", fmt::format(R"([model]
spec = "linear"
[[stage]]
name = "fit"
train = {{ format = "safetensors", file = "{0}.safetensors" }}
weight-decay = 1e-2
optimizer = "lbfgs:max-iterations=500,tolerance=1e-9"
checkpoint = "run/{0}.safetensors"
[queries.test]
data = {{ format = "safetensors", file = "asked.safetensors" }}
)",
                                           name));
  REQUIRE(folder.run("train " + name + ".toml --dtype float64 --quiet").status == 0);
}

std::string rank_command(const std::string& name, const std::string& rest) {
  return fmt::format(
      "rank {0}.toml --stage fit --queries test --top 2 --dtype float64 --quiet --curvature hessian "
      "--solver direct --damping 0 {1}",
      name, rest);
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("leaving the most helpful example out and training again raises the loss, the most harmful one lowers it") {
  const ToolFolder folder;
  write_regression(folder, "all");
  REQUIRE(folder.run(rank_command("all", "--out loss")).status == 0);
  REQUIRE(folder.run(rank_command("all", "--out chance --measurement log-probability")).status == 0);
  const auto loss = read_rankings(folder / "loss/ranking.jsonl"),
             chance = read_rankings(folder / "chance/ranking.jsonl");
  REQUIRE(loss.size() == 2);
  for (std::size_t q = 0; q < 2; ++q) {
    CHECK(loss[q].proponents[0].example == chance[q].proponents[0].example);  // whatever the measurement
    CHECK(loss[q].opponents[0].example == chance[q].opponents[0].example);
    CHECK(loss[q].proponents[0].score < 0);
    CHECK(chance[q].proponents[0].score > 0);
    CHECK(loss[q].proponents[0].removal.value() > 0);
    CHECK(chance[q].proponents[0].removal.value() < 0);
  }
  const auto measured_without = [&](std::int64_t example) {
    write_regression(folder, "without", example);
    REQUIRE(folder.run(rank_command("without", "--out again")).status == 0);
    auto found = read_rankings(folder / "again/ranking.jsonl");
    fs::remove_all(folder / "again");
    fs::remove_all(folder / "run/without.safetensors");
    return found[0].measurement;
  };
  const auto& helpful = loss[0].proponents[0];
  const auto& harmful = loss[0].opponents[0];
  const double rise = measured_without(helpful.example) - loss[0].measurement;
  const double fall = measured_without(harmful.example) - loss[0].measurement;
  CHECK(rise > 0);
  CHECK(fall < 0);
  CHECK(rise == doctest::Approx(*helpful.removal).epsilon(0.35));  // first order, in the loss's unit
  CHECK(fall == doctest::Approx(*harmful.removal).epsilon(0.35));
}

TEST_CASE("the terminal says what a query got, who helped it and whether that can be trusted") {
  const ToolFolder folder;
  write_regression(folder, "all");
  auto result = folder.run(rank_command("all", "--out loss"));
  CAPTURE(result.out);
  CHECK(result.out.starts_with(
      "helpful: without it the loss rises; harmful: it falls; removal: by how much, as predicted\n"));
  CHECK(has(result.out, "query 0: row 0 of asked.safetensors; predicts 1 (p 0."));
  CHECK(has(result.out, ", expected 1, loss 0."));
  CHECK(has(result.out, "query 1: row 1 of asked.safetensors; predicts 0 (p 0."));
  CHECK(has(result.out, ", expected 1 (p 0."));  // not what was expected, and how likely that was
  CHECK(has(result.out, "examples of fit, rows of all.safetensors\n"));
  const auto titles = result.out.substr(result.out.find("     helpful"));
  CHECK(titles.find("removal") < titles.find("score"));  // the removal leads
  CHECK(titles.find("helpful") < titles.find("harmful"));
  // solved within rounding at a minimum, of few examples: some weigh enough for a first order to miss their removal
  CHECK(last_line(result.out).starts_with("with care: the fit at fit leans on example "));
  CHECK(folder.json("loss/run.json")["verdict"] == last_line(result.out));
  const auto first =
      nlohmann::json::parse(folder.read("loss/ranking.jsonl").substr(0, folder.read("loss/ranking.jsonl").find('\n')));
  CHECK(first["prediction"]["predicted"] == "1");
  CHECK(first["prediction"]["expected"] == "1");
  CHECK(std::exp(-first["measurement"].get<double>()) ==
        doctest::Approx(first["prediction"]["expected-probability"].get<double>()));

  result = folder.run(rank_command("all", "--measurement log-probability"));
  CHECK(result.out.starts_with("helpful: without it the log-probability falls; harmful: it rises;"));
  result = folder.run(rank_command("all", "--measurement margin"));
  CHECK(result.out.starts_with("proponent: without it the margin falls; opponent: it rises;"));

  // blue before orange, one meaning each
  result = folder.start("export CLICOLOR_FORCE=1; unset NO_COLOR", rank_command("all", ""));
  CHECK(has(result.out, "\033[48;5;69m\033[38;5;16mhelpful\033[0m"));
  CHECK(has(result.out, "\033[48;5;208m\033[38;5;16mharmful\033[0m"));
}

TEST_CASE("a verdict is of the stages that were solved for") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string rank = "rank pipeline.toml --queries test --dtype float64 --quiet --curvature gauss-newton ";
  const auto of_last = last_line(folder.run(rank + "--stage finetune").out);
  CHECK(has(of_last, " at finetune "));
  CHECK(!has(of_last, "pretrain"));
  CHECK(has(last_line(folder.run(rank + "--stage pretrain").out), " at pretrain "));
}

TEST_CASE("methods that predict no removal tell none") {
  const ToolFolder folder;
  write_regression(folder, "all");
  const auto told = [&](const std::string& rest, bool removal) {
    fs::remove_all(folder / "out");
    const auto result = folder.run(rank_command("all", rest + " --out out"));
    CAPTURE(rest);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
    CHECK(has(result.out, "removal:") == removal);
    CHECK(has(folder.read("out/ranking.jsonl"), "removal") == removal);
    return folder.json("out/run.json")["verdict"].get<std::string>();
  };
  CHECK(told("--method random", false) == "cannot be trusted: random is a baseline that knows nothing");
  for (const std::string rest : {"--method grad-cos", "--method grad-dot", "--method rep-sim"}) {
    CHECK(has(told(rest, false), "orders examples and predicts no removal"));
  }
  told("--normalize cosine", false);
  told("--normalize relatif", false);
  CHECK(told("", true).starts_with("with care: the fit at fit leans on example "));
  CHECK(told("--method trak:dimension=4", true).starts_with("with care: trak predicts removals by an approximation"));
  REQUIRE(folder.run(rank_command("all", "--method grad-dot --out page")).status == 0);
  REQUIRE(folder.run("report page").status == 0);
  CHECK_FALSE(has(folder.read("page/report.html"), "loss +"));
}

TEST_CASE("an evaluation ends in a verdict, and a plan takes one training") {
  const ToolFolder folder;
  write_regression(folder, "all");
  REQUIRE(folder.run(rank_command("all", "--out out")).status == 0);
  auto result = folder.run("evaluate all.toml --scores out --plan --quiet --threads 1");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(has(result.out, "21 trainings of fit, 1 at a time\ntime    about "));
  CHECK_FALSE(fs::exists(folder / "out/evaluation.json"));
  result = folder.run("evaluate all.toml --scores out --plan --against lds --subsets 7 --json --quiet");
  CHECK(nlohmann::json::parse(result.out)["trainings"] == 7);

  result = folder.run("evaluate all.toml --scores out --examples 3 --quiet");
  CAPTURE(result.out);
  REQUIRE(result.status == 0);
  CHECK(last_line(result.out).starts_with("too few to say: Pearson "));
  CHECK(has(last_line(result.out), " over 3 examples; --examples 20 takes about "));
  CHECK(folder.json("out/run.json")["verdict"].get<std::string>().starts_with("with care: the fit at fit leans"));

  result = folder.run("evaluate all.toml --scores out --examples 20 --quiet");
  CHECK(last_line(result.out).starts_with("can be trusted: Pearson 0.9"));
  CHECK(folder.json("out/evaluation.json")["verdict"] == last_line(result.out));
  CHECK(folder.json("out/run.json")["verdict"] == last_line(result.out));  // the ranking's is now that

  // made again beside its evaluation, it keeps that verdict; a part that is gone stops no reader of the others
  fs::remove(folder / "out/scores.safetensors");
  result = folder.run(rank_command("all", "--out out"));
  CHECK(last_line(result.out).starts_with("can be trusted: Pearson 0.9"));
  fs::remove(folder / "out/evaluation.svg");
  CHECK(folder.run("inspect out").status == 0);
  CHECK(folder.run("evaluate all.toml --scores out --examples 2 --quiet --out apart").status == 0);
  CHECK(folder.run("inspect apart").out.find("evaluation.json") != std::string::npos);

  REQUIRE(folder.run("report out").status == 0);
  const auto page = folder.read("out/report.html");
  CHECK(page.find("class=\"verdict good\" role=\"note\">can be trusted: Pearson 0.9") <
        page.find("class=\"evidence\""));
  CHECK(has(page, "row 0 of asked.safetensors"));
  CHECK(has(page, "<dt>expected</dt>"));
  CHECK_FALSE(has(page, "mixed=double-backward"));  // a spec's defaults are not told

  check_fails(folder.run("report out --out all.toml"), 1, "all.toml is an input of this run");
  for (const std::string other : {"--queries test --method random", "--self"}) {  // which nothing has evaluated
    REQUIRE(folder.run("rank all.toml --dtype float64 --quiet --out out " + other).status == 0);
    REQUIRE(folder.run("report out").status == 0);
    CHECK_FALSE(has(folder.read("out/report.html"), "Pearson 0.9"));
    CHECK_FALSE(has(folder.read("out/report.html"), "leave-one-out retraining"));
  }

  REQUIRE(folder
              .run("rank all.toml --queries test --curvature gauss-newton --solver ekfac --relative-damping 0.1 "
                   "--quiet --out fast")
              .status == 0);
  result = folder.run("report fast");  // ekfac's spec is read back
  CAPTURE(result.err);
  CHECK(result.status == 0);

  REQUIRE(folder.run("rank all.toml --stage all --queries test --dtype float64 --quiet --out every").status == 0);
  const auto stages = folder.run("evaluate all.toml --scores every --stage fit --examples 5 --quiet");
  CAPTURE(stages.err);
  CHECK(stages.status == 0);
}

TEST_SUITE_END();
