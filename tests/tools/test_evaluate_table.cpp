// `whence evaluate --methods`: several methods against one truth, through the binary.
#include <algorithm>

#include "../tools/comparison_verdict.h"
#include "support/contents.h"
#include "support/tool.h"

using namespace whence;
using test::check_fails;
using test::contains;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

const std::string kTableFlags = "evaluate pipeline.toml --dtype float64 --quiet ";

nlohmann::json row_of(const nlohmann::json& table, const std::string& method) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const auto& row) { return row["method"] == method; });
  REQUIRE(found != table.end());
  return *found;
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("a table's verdict names a quicker method where it comes within 5 % of the best, and else the best") {
  const auto lds = create<cli::Truth>("lds");
  const auto verdict = [&](double quicker) {
    const auto row = [](const char* method, double value, double seconds) {
      return nlohmann::ordered_json{{"method", method},
                                    {"lds", value},
                                    {"lds-interval-95", {value - 0.1, value + 0.1}},
                                    {"seconds", seconds},
                                    {"rank", "whence rank by " + std::string(method)}};
    };
    return cli::verdict_of_comparison({{"table", {row("influence", 0.8, 9), row("ekfac", quicker, 1)}}}, *lds).text;
  };
  CHECK(contains(verdict(0.77), "the quickest of those within 5 % is ekfac, 1 s; type whence rank by ekfac"));
  CHECK(contains(verdict(0.75), "not apart from it: ekfac; type whence rank by influence"));
}

TEST_CASE("where neither a method nor another seed is apart from chance, more of the same is not advised") {
  const auto retraining = create<cli::Truth>("retraining");
  nlohmann::ordered_json result{
      {"ceiling", {{"pearson", 0.1}, {"pearson-interval-95", {-0.2, 0.3}}}},
      {"table", {{{"method", "influence"}, {"pearson", 0.1}, {"pearson-interval-95", {-0.1, 0.3}}, {"seconds", 1}}}}};
  CHECK(contains(cli::verdict_of_comparison(result, *retraining).text, "--against lds, which leaves halves out"));
  CHECK(contains(retraining->legend(result), "another seed is not apart from chance"));
  result["ceiling"]["pearson-interval-95"] = {0.05, 0.3};
  CHECK(contains(cli::verdict_of_comparison(result, *retraining).text, "more --examples would tell"));
  CHECK(retraining->legend(result).empty());
}

TEST_CASE("evaluate --methods: a table with its ceiling, whose trainings later runs take from the bank") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string lds = kTableFlags + "--against lds --methods influence,ekfac+direct --subsets 8 ";
  const auto first = folder.run(lds + "--out out");
  CAPTURE(first.err);
  REQUIRE(first.status == 0);
  CHECK(contains(first.out, "ceiling: another seed"));
  const auto result = folder.json("out/evaluation.json");
  CHECK(result["table"].size() == 4);
  CHECK(result["trainings"] == 16);
  CHECK(result["train-from"] == "start");
  const auto verdict = result["verdict"].get<std::string>();
  CHECK(contains(verdict, " agrees best, lds "));
  CHECK(contains(verdict, "type whence rank pipeline.toml --stage finetune --queries test --dtype float64"));
  CHECK(contains(first.out, verdict));
  const std::string command = "whence rank pipeline.toml --stage finetune --queries test --dtype float64";
  CHECK(row_of(result["table"], "influence")["rank"] == command);
  CHECK(row_of(result["table"], "ekfac+direct")["rank"] == command + " --curvature ekfac --solver direct");
  CHECK_FALSE(row_of(result["table"], "random").contains("rank"));
  REQUIRE(folder.run("report out").status == 0);
  check_fails(folder.run("report out --out out/run.json"), 1, "out/run.json is there and is no page");
  CHECK(contains(folder.read("out/report.html"), "Methods against lds"));
  CHECK(contains(folder.read("out/report.html"), "dashed: the ceiling"));
  CHECK(row_of(result["table"], "influence")["lds"] > row_of(result["table"], "random")["lds"]);
  CHECK(row_of(result["table"], "grad-cos")["share-of-ceiling"].is_number());
  CHECK(std::distance(fs::directory_iterator(folder / "out/bank"), fs::directory_iterator()) ==
        20);  // and the scores of 4 methods

  // another run takes them, and trains what is new
  fs::rename(folder / "out/bank", folder / "bank");
  fs::create_directory(folder / "again");
  fs::rename(folder / "bank", folder / "again/bank");
  const auto again = folder.run(lds + "--out again");
  REQUIRE(again.status == 0);
  auto repeated = folder.json("again/evaluation.json");
  CHECK(repeated["seconds-a-training"].is_null());
  for (const auto& row : repeated["table"]) {  // scores too: these are the seconds that they took then
    CHECK(row["lds"] == row_of(result["table"], row["method"])["lds"]);
    CHECK(row["seconds"] == row_of(result["table"], row["method"])["seconds"]);
  }
  CHECK(repeated["ceiling"] == result["ceiling"]);
  REQUIRE(folder.run(kTableFlags + "--against lds --methods influence --subsets 9 --out again").status == 0);
  CHECK(std::distance(fs::directory_iterator(folder / "again/bank"), fs::directory_iterator()) == 22);

  const auto plan = [&](const std::string& flags) {
    const auto run = folder.run(kTableFlags + flags + " --out again --plan --json");
    REQUIRE(run.status == 0);
    return nlohmann::json::parse(run.out);
  };
  auto planned = plan("--against lds --methods influence,trak --subsets 9");
  CHECK(planned["kept-trainings"] == 18);
  CHECK(planned["scoring-seconds"].size() == 1);
  CHECK(planned["scoring-seconds"]["trak"]["low"].get<double>() > 0);
  // the examples that are left out are those that the kept scores tell; else none of them is known
  planned = plan("--against retraining --methods influence --examples 3");
  CHECK(planned["scoring-seconds"].empty());
  REQUIRE(folder.run(kTableFlags + "--against retraining --methods influence --examples 3 --out again").status == 0);
  CHECK(plan("--against retraining --methods influence --examples 3")["kept-trainings"] == 8);
  planned = plan("--against retraining --methods influence,trak --examples 3");
  CHECK(planned["kept-trainings"] == 2);
  CHECK(planned["trainings"] == 8);

  check_fails(folder.run(kTableFlags + "--against lds --methods segment --subsets 8"), 1,
              "--methods: segment: stage finetune: response segment needs the sum of its learning rates");
  check_fails(folder.run(kTableFlags + "--against lds --methods influence,nosuch --subsets 8"), 2, "nosuch");
  check_fails(folder.run(kTableFlags + "--against lds --methods bm25 --subsets 8"), 2, "words of texts");
  check_fails(folder.run(kTableFlags + "--against recall --methods influence"), 2, "--source-column is missing");
  REQUIRE(
      folder.run("score pipeline.toml --stage finetune --queries test --method grad-dot --quiet --out scores").status ==
      0);
  check_fails(folder.run(lds + "--out scores"), 1, "scores holds a result of whence score: choose another --out");
  check_fails(folder.run(lds + "--scores scores"), 2, "leave out --methods");
}

TEST_CASE(
    "evaluate --against removal: in least squares the second order foretells exactly what leaving many out does") {
  const ToolFolder folder;
  auto draws = Random(5);
  for (const auto& [name, rows] : {std::pair{"rows.safetensors", 60}, {"asked.safetensors", 5}}) {
    ParameterSet tensors;
    const auto inputs = draws.normal({rows, 4});
    tensors.add("inputs", inputs);
    tensors.add("targets", inputs.sum(1, true) + 0.5 * draws.normal({rows, 1}));
    write_safetensors(folder / name, tensors);
  }
  folder.write("linear.toml", R"([model]
spec = "linear"
[[stage]]
name = "fit"
train = { format = "safetensors", file = "rows.safetensors" }
loss = "squared-error"
weight-decay = 1e-2
optimizer = "lbfgs:max-iterations=2000,tolerance=1e-11"
checkpoint = "run/fit.safetensors"
[queries.asked]
data = { format = "safetensors", file = "asked.safetensors" }
)");
  REQUIRE(folder.run("train linear.toml --dtype float64 --quiet").status == 0);
  const auto run = folder.run(
      "evaluate linear.toml --against removal --methods influence,ekfac,grad-dot --remove 10,40 --measurement logit "
      "--dtype float64 --quiet --out out");
  CAPTURE(run.err);
  REQUIRE(run.status == 0);
  const auto table = folder.json("out/evaluation.json")["table"];
  for (const auto& removal : row_of(table, "influence")["removals"]) {
    const auto actual = removal["worse-by"].get<double>();
    CHECK(removal["foretold-second-order"].get<double>() == doctest::Approx(actual).epsilon(1e-8));
    CHECK(std::abs(removal["foretold"].get<double>() - actual) > 0.05 * actual);
  }
  CHECK(row_of(table, "ekfac")["removals"][0]["foretold-second-order"].is_null());  // of factors of all examples
  CHECK_FALSE(row_of(table, "grad-dot")["removals"][0].contains("foretold"));       // which claims an order
}

TEST_CASE("evaluate --methods: retraining, further training, removal and changed labels") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  auto run = folder.run(kTableFlags + "--against retraining --methods influence --examples 6 --no-ceiling --out out");
  CAPTURE(run.err);
  REQUIRE(run.status == 0);
  auto result = folder.json("out/evaluation.json");
  CHECK(row_of(result["table"], "influence")["pearson"] > 0.9);
  CHECK(row_of(result["table"], "influence")["share-of-ceiling"].is_null());
  REQUIRE(
      folder.run(kTableFlags + "--against further-training --methods influence --examples 6 --no-ceiling --out further")
          .status == 0);
  CHECK(folder.json("further/evaluation.json")["train-from"] == "checkpoint");
  CHECK(row_of(folder.json("further/evaluation.json")["table"], "influence")["pearson"] > 0.9);
  REQUIRE(folder.run(kTableFlags + "--against removal --methods influence --remove 10,20 --out removal").status == 0);
  result = folder.json("removal/evaluation.json");
  for (const auto p : {0U, 1U}) {
    CHECK(row_of(result["table"], "influence")["removals"][p]["worse-by"] >
          row_of(result["table"], "random")["removals"][p]["worse-by"]);
  }
  const std::string labels = kTableFlags + "--limit-queries 4 --against mislabel --out labels --methods influence";
  const auto plan = nlohmann::json::parse(folder.run(labels + " --plan --json").out);
  CHECK(plan["trainings"] == 1);
  CHECK(plan["seconds"].get<double>() > 0);
  REQUIRE(folder.run(labels).status == 0);
  result = folder.json("labels/evaluation.json");
  CHECK(row_of(result["table"], "influence")["rank"] ==
        "whence rank pipeline.toml --stage finetune --self --dtype float64");
  CHECK(row_of(result["table"], "grad-cos")["rank"] ==
        "whence rank pipeline.toml --stage finetune --queries test --limit-queries 4 --dtype float64 --method "
        "grad-cos");
  CHECK(result["mislabelled"] == 10);
  CHECK(row_of(result["table"], "influence")["auroc"] > 0.8);
  CHECK(row_of(result["table"], "grad-cos")["by"] == "queries");
  // the stage on changed labels is kept too: with another method it is not trained again
  const auto kept = std::distance(fs::directory_iterator(folder / "labels/bank"), fs::directory_iterator());
  CHECK(kept == 1);
  REQUIRE(folder.run(labels + ",grad-dot").status == 0);
  CHECK(std::distance(fs::directory_iterator(folder / "labels/bank"), fs::directory_iterator()) == kept);
  const auto more = folder.json("labels/evaluation.json");
  CHECK(row_of(more["table"], "influence")["auroc"] == row_of(result["table"], "influence")["auroc"]);
}

TEST_CASE("evaluate --scores --against lds: the ceiling beside the score where training ended at no minimum") {
  const ToolFolder folder;
  auto pipeline = folder.read("pipeline.toml");
  for (auto at = pipeline.find("optimizer = "); at != pipeline.npos; at = pipeline.find("optimizer = ", at + 1)) {
    pipeline.replace(at, pipeline.find('\n', at) - at,
                     "optimizer = \"adam:epochs=3,learning-rate=1e-2\"\nsnapshots = 3");
  }
  folder.write("pipeline.toml", pipeline);
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  REQUIRE(folder.run("score pipeline.toml --stage finetune --queries test --dtype float64 --quiet --out out").status ==
          0);
  const std::string lds = "evaluate pipeline.toml --scores out --against lds --subsets 6 --quiet";
  const auto run = folder.run(lds);
  CAPTURE(run.err);
  REQUIRE(run.status == 0);
  const auto found = folder.json("out/evaluation-lds.json");
  CHECK(found["train-from"] == "start");
  CHECK(found["ceiling"].get<double>() <= 1);
  CHECK(found["share-of-ceiling"].get<double>() ==
        doctest::Approx(found["lds"].get<double>() / found["ceiling"].get<double>()));
  CHECK(contains(run.out, "with another seed"));
  CHECK(std::distance(fs::directory_iterator(folder / "out/bank"), fs::directory_iterator()) == 12);
  REQUIRE(folder.run(lds + " --no-ceiling").status == 0);
  CHECK_FALSE(folder.json("out/evaluation-lds.json").contains("ceiling"));

  // the stage on changed labels has snapshots of its own training, by whichever optimizer
  const std::string labels = "evaluate pipeline.toml --against mislabel --methods tracin --quiet --out labels";
  REQUIRE(folder.run(labels).status == 0);
  const auto own = row_of(folder.json("labels/evaluation.json")["table"], "tracin");
  CHECK(own["by"] == "self");
  REQUIRE(folder.run(labels + " --optimizer adam:epochs=30,learning-rate=1e-2").status == 0);
  CHECK(row_of(folder.json("labels/evaluation.json")["table"], "tracin")["auroc"] != own["auroc"]);
}

TEST_CASE("evaluate --against recall: examples that a query is a copy of come first") {
  const ToolFolder folder;
  std::string train = "x,y,label,source\n", queries = train;
  auto draws = Random(4);
  for (int i = 0; i < 40; ++i) {
    const auto point = draws.normal({2}) * 3;
    const double x = point[0].item<double>(), y = point[1].item<double>();
    const auto cells = fmt::format("{},{},{},", x, y, x + y > 0 ? "up" : "down");
    train += cells + fmt::format("s{}\n", i);
    if (i < 5) {
      queries += cells + fmt::format("s{}\n", i);
    }
  }
  folder.write("train.csv", train);
  folder.write("queries.csv", queries);
  folder.write("pipeline.toml", R"(
[model]
spec = "mlp:widths=32,activation=relu"
[[stage]]
name = "fit"
train = { format = "csv", file = "train.csv", ignore = ["source"], label = "label" }
optimizer = "lbfgs:max-iterations=50"
weight-decay = 1e-3
checkpoint = "fit.safetensors"
[queries.test]
data = { format = "csv", file = "queries.csv", ignore = ["source"], label = "label" }
)");
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string command = kTableFlags + "--against recall --methods rep-sim --source-column source --out out";
  const auto plan = nlohmann::json::parse(folder.run(command + " --plan --json").out);
  CHECK(plan["trainings"] == 0);
  CHECK(plan["scoring-seconds"].contains("rep-sim"));
  CHECK(folder.run(command + " --plan").out.starts_with("no trainings: "));
  const auto run = folder.run(command);
  CAPTURE(run.err);
  REQUIRE(run.status == 0);
  const auto result = folder.json("out/evaluation.json");
  CHECK(result["queries-with-sources"] == 5);
  CHECK(row_of(result["table"], "rep-sim")["mrr"] == 1);
  CHECK(row_of(result["table"], "rep-sim")["recall@1"] == 1);
  CHECK(row_of(result["table"], "random")["mrr"] < 0.9);
}

TEST_SUITE_END();
