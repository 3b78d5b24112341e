// `--self` and `--format` of rank and score, through the binary.
#include "support/near.h"
#include "support/tool.h"
#include "whence/store/score_store.h"
#include "whence/store/self_scores.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

/// Two bytes and then as many as they say: a NumPy header.
std::string npy_header(const std::string& bytes) {
  REQUIRE(bytes.starts_with("\x93NUMPY\x01"));
  const auto length = static_cast<unsigned char>(bytes[8]) + 256U * static_cast<unsigned char>(bytes[9]);
  CHECK((10 + length) % 64 == 0);
  return bytes.substr(10, length);
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("--self: the matrix's diagonal without the matrix, one file and one line an example") {
  const ToolFolder folder;
  folder.write("self.toml", folder.pipeline("file = \"queries.safetensors\"", "file = \"finetune.safetensors\""));
  REQUIRE(folder.run("train self.toml --dtype float64 --quiet").status == 0);
  const std::string flags = " --dtype float64 --quiet --solver direct --curvature hessian --damping 1e-3";
  auto result = folder.run("rank self.toml --self --stage finetune --top 3 --out self" + flags);
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  REQUIRE(folder.run("score self.toml --stage finetune --queries test --out whole" + flags).status == 0);
  const auto self = read_self_scores(folder / "self");
  REQUIRE(self.stages.size() == 1);
  CHECK(self.stages[0].name == "self");
  const auto whole = read_scores(folder / "whole").stages[0].scores;
  CHECK(test::relative_error(self.stages[0].scores, whole.diagonal()) < test::Tolerance::kDense);

  std::istringstream lines(folder.read("self/ranking.jsonl"));
  std::vector<nlohmann::json> ranking;
  for (std::string line; std::getline(lines, line);) {
    ranking.push_back(nlohmann::json::parse(line));
  }
  REQUIRE(ranking.size() == 100);
  CHECK(ranking[0]["score"].get<double>() == doctest::Approx(whole.diagonal().min().item<double>()));
  CHECK(ranking[0]["removal"].get<double>() == doctest::Approx(-ranking[0]["score"].get<double>() / 100));
  CHECK(ranking[0].contains("label"));
  CHECK(ranking[0]["score"].get<double>() < ranking[99]["score"].get<double>());
  CHECK(result.out.find(fmt::format("{}", ranking[0]["example"].get<int>())) != std::string::npos);
  CHECK(result.out.find("removal") < result.out.find("score"));
  CHECK(result.out.find("of the 100 rows of finetune.safetensors") != std::string::npos);
  CHECK(folder.json("self/run.json")["verdict"].get<std::string>().find("whence evaluate") == std::string::npos);
  auto told = folder.run("inspect self --json");
  CAPTURE(told.err);
  REQUIRE(told.status == 0);
  const auto inspected = nlohmann::json::parse(told.out);
  CHECK(inspected["queries"].get<std::string>().find("--self") != std::string::npos);
  REQUIRE(inspected["scores"].size() == 1);
  CHECK(inspected["scores"][0]["name"] == "self");
  CHECK(inspected["scores"][0]["examples"] == 100);
  CHECK(inspected["scores"][0]["lowest"] == ranking[0]["score"]);
  CHECK(inspected["stages"].contains("finetune"));
  told = folder.run("inspect self");
  CHECK(told.out.find("queries          none: each example's score is for its own loss (--self)") != std::string::npos);
  REQUIRE(folder.run("report self").status == 0);
  const auto page = folder.read("self/report.html");
  CHECK(page.find("left out, their own loss rises most") != std::string::npos);
  CHECK(page.find(fmt::format(">row {}<", ranking[0]["example"].get<int>())) != std::string::npos);
  folder.write("self/ranking.jsonl", "{\"stage\": 1}");
  check_fails(folder.run("report self"), 1, "self/ranking.jsonl was changed since whence wrote it");
  fs::remove(folder / "self/ranking.jsonl");
  check_fails(folder.run("evaluate self.toml --scores self"), 1, "holds what --self made");

  // again: found done; each stage at its own end; float32 as double
  result = folder.run("score self.toml --self --stage finetune --out self" + flags);
  CHECK(result.out.find("already complete") != std::string::npos);
  REQUIRE(folder.run("score self.toml --self --stage all --out all" + flags).status == 0);
  const auto all = read_self_scores(folder / "all");
  REQUIRE(all.stages.size() == 2);
  REQUIRE(folder
              .run("score self.toml --self --stage all --out single --quiet --solver direct --curvature hessian "
                   "--damping 1e-3")
              .status == 0);
  const auto single = read_self_scores(folder / "single");
  for (std::size_t s = 0; s < 2; ++s) {
    CHECK(test::relative_error(single.stages[s].scores, all.stages[s].scores) < 1e-3);
  }
  // without a word on the solver it says what it chose; the result of --self is no matrix of queries
  result =
      folder.run("rank self.toml --self --stage finetune --dtype float64 --quiet --curvature hessian --damping 1e-3");
  CHECK(result.out.find("exact, by the matrix of") != std::string::npos);
  REQUIRE(folder.run("score self.toml --stage finetune --queries test --out self" + flags).status == 0);
  CHECK(read_scores(folder / "self").stages[0].scores.dim() == 2);

  check_fails(folder.run("rank self.toml --self --stage finetune --queries test"), 2, "leave out --queries");
  check_fails(folder.run("rank self.toml --self --stage finetune --method grad-cos --quiet"), 1, "use grad-dot");
}

TEST_CASE("--self: each stage is damped by its own training time, as for queries") {
  const ToolFolder folder;
  auto pipeline = folder.pipeline();
  int stage = 0;
  for (auto at = pipeline.find("optimizer = "); at != pipeline.npos; at = pipeline.find("optimizer = ", at + 1)) {
    pipeline.replace(at, pipeline.find('\n', at) - at,
                     fmt::format("optimizer = \"sgd:epochs=2,learning-rate={}\"", stage++ == 0 ? 1e-3 : 1e-4));
  }
  folder.write("pipeline.toml", pipeline);
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  REQUIRE(folder.run("score pipeline.toml --stage all --self --dtype float64 --quiet --out self").status == 0);
  const auto run = folder.json("self/run.json");
  const auto least = run["options"]["training-damping"].get<std::vector<double>>();
  CHECK(least[1] > 5 * least[0]);
  CHECK(run["stages"]["pretrain"]["damping"] == least[0]);
  CHECK(run["stages"]["finetune"]["damping"] == least[1]);
}

TEST_CASE("--format: csv, jsonl and npy beside safetensors, of queries, of --self and of every stage") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --quiet").status == 0);
  const std::string flags = " --quiet --solver direct --curvature hessian --damping 1e-3";
  const auto result =
      folder.run("rank pipeline.toml --stage pretrain --top 2 --out one --format csv,jsonl,npy" + flags);
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto scores = read_scores(folder / "one").stages[0].scores;
  std::istringstream csv(folder.read("one/scores.csv"));
  std::string line;
  std::getline(csv, line);
  CHECK(line == "example,label,query 0,query 1,query 2,query 3,query 4");
  for (std::int64_t row = 0; row < 200; ++row) {
    REQUIRE(std::getline(csv, line));
    CHECK(line.starts_with(fmt::format("{},", row)));
    CHECK(std::stof(line.substr(line.rfind(',') + 1)) == scores[4][row].item<float>());
  }
  CHECK_FALSE(std::getline(csv, line));
  std::istringstream jsonl(folder.read("one/scores.jsonl"));
  std::getline(jsonl, line);
  const auto first = nlohmann::json::parse(line);
  CHECK(first["example"] == 0);
  CHECK(first["query 3"].get<float>() == scores[3][0].item<float>());
  CHECK(folder.read("one/queries.csv").starts_with("query,label,loss\n0,"));
  CHECK(folder.read("one/ranking.csv")
            .starts_with("query,stage,side,place,example,label,removal,score\n0,pretrain,proponent,1,"));
  const auto npy = folder.read("one/scores.npy");
  CHECK(npy_header(npy).starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 200), }"));
  CHECK(npy.substr(npy.size() - 4000) ==
        std::string(static_cast<const char*>(scores.contiguous().const_data_ptr()), 4000));
  CHECK(npy_header(folder.read("one/example-ids.npy")).find("'<i8'") != std::string::npos);
  CHECK(npy_header(folder.read("one/example-labels.npy")).find("'<U1', 'fortran_order': False, 'shape': (200,)") !=
        std::string::npos);

  REQUIRE(folder.run("score pipeline.toml --self --stage all --out all --format csv" + flags).status == 0);
  CHECK(folder.read("all/self.finetune.csv").starts_with("example,label,score,origin\n0,"));
  check_fails(folder.run("score pipeline.toml --self --stage all --out all --format parquet"), 2,
              "known: safetensors, csv, jsonl, npy");
  check_fails(folder.run("rank pipeline.toml --stage pretrain --format csv"), 2, "--out DIR");
}

TEST_SUITE_END();
