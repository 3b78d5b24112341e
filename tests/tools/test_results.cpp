// What an --out folder holds, through the binary: one run's files and none of another's, whole or not at all.
#include <algorithm>

#include "support/contents.h"
#include "support/tool.h"
#include "whence/store/result_folder.h"

using namespace whence;
using test::check_fails;
using test::contains;
using test::less_warnings;
using test::Names;
using test::names_in;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

const std::string kFlags = " pipeline.toml --stage pretrain --queries test --dtype float64 --quiet --query-block 2 ";

/// run.json without times, of which no two runs have the same, and what follows from the folder's name.
nlohmann::ordered_json told(const ToolFolder& folder, const std::string& name) {
  auto run = nlohmann::ordered_json::parse(folder.read(name + "/run.json"));
  for (const char* key : {"seconds", "arguments", "sha256", "verdict"}) {
    run.erase(key);
  }
  for (auto& [stage, entry] : run["stages"].items()) {
    for (auto& solve : entry["solves"]) {
      solve.erase("seconds");
    }
  }
  return run;
}

void flip(const ToolFolder& folder, const std::string& name, std::size_t place) {
  auto bytes = folder.read(name);
  bytes[place] = static_cast<char>(bytes[place] ^ 1);
  folder.write(name, bytes);
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("a result folder holds one run's files and none of another's") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string rank = "rank" + kFlags + "--method grad-dot --out out ";
  auto result = folder.run(rank + "--top 3 --format csv,npy");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(names_in(folder / "out") == Names{"example-ids.npy", "example-labels.npy", "queries.csv", "query-ids.npy",
                                          "query-labels.npy", "ranking.csv", "ranking.jsonl", "run.json", "scores.csv",
                                          "scores.npy", "scores.safetensors"});
  const auto run = folder.json("out/run.json");
  CHECK(run["files"].size() == 10);
  CHECK(run["files"]["scores.csv"]["sha256"] == digest(folder / "out/scores.csv"));
  CHECK(run["key"] == read_safetensors_metadata(folder / "out/scores.safetensors").at("run-key"));

  // the same run: what it does not make again is still true, but a table of another --top
  REQUIRE(folder.run(rank + "--top 2").status == 0);
  const auto table = folder.read("out/ranking.csv");
  CHECK(std::count(table.begin(), table.end(), '\n') == 1 + 5 * 4);
  REQUIRE(folder.run("report out").status == 0);
  REQUIRE(folder.run("evaluate pipeline.toml --scores out --examples 2 --quiet").status == 0);
  CHECK(folder.json("out/run.json")["files"].size() == 13);
  CHECK(folder.run("score" + kFlags + "--method grad-dot --out out").out.find("already complete") != std::string::npos);
  CHECK(fs::exists(folder / "out/evaluation.json"));
  CHECK(contains(folder.run("inspect out").out, "evaluation.svg"));

  // another run's evaluation is not taken in
  REQUIRE(folder.run("score" + kFlags + "--method random --out random").status == 0);
  check_fails(folder.run("evaluate pipeline.toml --scores out --out random --examples 2 --quiet"), 1,
              "random holds another result than out: choose another --out");
  REQUIRE(folder.run("evaluate pipeline.toml --scores random --out judged --examples 2 --quiet").status == 0);
  CHECK(folder.json("judged/evaluation.json")["key"] == folder.json("random/run.json")["key"]);

  const auto judged = folder.run("inspect judged");
  CHECK(judged.status == 0);
  CHECK_FALSE(contains(judged.err, "warning"));

  // another run: nothing of the first stays but trainings, which no scores rest on, and nothing of the user's goes
  folder.write("out/notes.txt", "mine");
  REQUIRE(folder.run("score" + kFlags + "--method random --out out").status == 0);
  CHECK(names_in(folder / "out") == Names{"bank", "notes.txt", "run.json", "scores.safetensors"});
  check_fails(folder.run("report out"), 1, "holds no ranking.jsonl");

  // nor a result of another kind
  check_fails(folder.run("kernel pipeline.toml --quiet --out out"), 1,
              "out holds a result of whence score: choose another --out");
  CHECK(fs::exists(folder / "out/scores.safetensors"));

  // before any work
  folder.write("out/ranking.jsonl", "mine too");
  check_fails(folder.run(rank), 1,
              "out/ranking.jsonl was not written by whence and would be overwritten: move it away");
  CHECK(folder.read("out/ranking.jsonl") == "mine too");
  fs::create_directories(folder / "user");
  folder.write("user/run.json", "{\"mine\": 1}");
  check_fails(folder.run("score" + kFlags + "--method random --out user"), 1,
              "user/run.json: not a run.json of this version of whence");
  folder.write("judged/report.html", "mine");
  check_fails(folder.run("report judged"), 1, "judged/report.html was not written by whence");
  folder.write("other.toml", folder.pipeline());
  check_fails(folder.run("evaluate other.toml --scores random --examples 2"), 1,
              "other.toml is another pipeline: evaluate the one that was scored");
}

TEST_CASE("a flipped bit in any file of a result is told, in one line that names the file") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string rank = "rank" + kFlags + "--method grad-dot --out out";
  REQUIRE(folder.run(rank).status == 0);
  REQUIRE(folder.run("evaluate pipeline.toml --scores out --examples 2 --quiet").status == 0);
  const std::string evaluate = "evaluate pipeline.toml --scores out --examples 2 --quiet";
  for (const auto& [file, readers] :
       std::map<std::string, std::vector<std::string>>{{"scores.safetensors", {rank, evaluate, "inspect out"}},
                                                       {"ranking.jsonl", {rank, "report out", "inspect out"}},
                                                       {"evaluation.json", {"report out", "inspect out", evaluate}},
                                                       {"run.json", {rank, evaluate, "report out", "inspect out"}}}) {
    const auto name = "out/" + file;
    const auto bytes = folder.read(name);
    flip(folder, name, file == "run.json" ? bytes.rfind('1') : bytes.size() / 2);
    for (const auto& reader : readers) {
      CAPTURE(reader);
      check_fails(folder.run(reader), 1, name + " was changed since whence wrote it");
    }
    folder.write(name, bytes);
  }
  fs::remove(folder / "out/scores.safetensors");
  CHECK(folder.run(rank).status == 0);
  CHECK(folder.run("inspect out").status == 0);
}

TEST_CASE("a run that was stopped goes on to the same bytes, with the same evidence, warnings and exit status") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --quiet --dtype float32").status == 0);
  const std::string rank =
      "rank pipeline.toml --stage all --queries test --dtype float32 --quiet --query-block 2 --curvature gauss-newton "
      "--solver cg:max-iterations=3,relative-tolerance=1e-6 --relative-damping 1e-3 --normalize relatif --strict "
      "--out ";
  const auto first = folder.run(rank + "whole");
  CAPTURE(first.err);
  REQUIRE(first.status == 4);
  const auto whole = told(folder, "whole");
  REQUIRE(whole["stages"]["pretrain"]["solves"].size() == 5);
  const auto check_whole = [&](const std::string& name, const test::ToolResult& result) {
    CAPTURE(result.err);
    CHECK(result.status == 4);
    CHECK(result.err == first.err);
    CHECK(names_in(folder / name) == names_in(folder / "whole"));
    CHECK(folder.read(name + "/scores.safetensors") == folder.read("whole/scores.safetensors"));
    CHECK(folder.read(name + "/ranking.jsonl") == folder.read("whole/ranking.jsonl"));
    CHECK(told(folder, name).dump(1) == whole.dump(1));
  };
  check_whole("whole", folder.run(rank + "whole"));  // found done

  // the disk is full when every solve is done and every score made, but their file is not
  check_fails(less_warnings(folder.start("ulimit -f 6", rank + "full")), 1, "scores.safetensors: File too large");
  CHECK(names_in(folder / "full") == Names{".whence-partial"});
  for (const char* reader : {"report", "inspect"}) {
    check_fails(folder.run(fmt::format("{} full", reader)), 1,
                "full: its run is not done: it was stopped, and the same command goes on from there: whence rank "
                "pipeline.toml --stage all");
  }
  fs::copy(folder / "full", folder / "vectors", fs::copy_options::recursive);
  fs::copy(folder / "full", folder / "some", fs::copy_options::recursive);
  fs::copy(folder / "full", folder / "torn", fs::copy_options::recursive);
  check_whole("full", folder.run(rank + "full"));
  // killed before the first blocks were known to be on disk: scores are made again from saved vectors
  fs::remove(folder / "vectors/.whence-partial/journal.txt");
  check_whole("vectors", folder.run(rank + "vectors"));
  // killed after the first block of queries
  fs::remove(folder / "some/.whence-partial/journal.txt");
  std::size_t gone = 0;
  for (const char* block : {"2-3", "4-4"}) {
    gone += fs::remove(folder / fmt::format("some/.whence-partial/vectors.queries%20{}.safetensors", block)) ? 1 : 0;
  }
  CHECK(gone == 2);
  check_whole("some", folder.run(rank + "some"));
  // a bit that flipped in between
  flip(folder, "torn/.whence-partial/journal.txt", 4);
  flip(folder, "torn/.whence-partial/scores.finetune.bin", 99);
  const auto saved = "torn/.whence-partial/vectors.queries%202-3.safetensors";
  flip(folder, saved, folder.read(saved).size() - 5);
  check_whole("torn", folder.run(rank + "torn"));

  // B over a finished A, stopped before its result counted: A is whole, and B again is B
  const std::string score = "score" + kFlags + "--method grad-dot --out ";
  REQUIRE(folder.run(score + "a").status == 0);
  const auto a = folder.read("a/run.json");
  check_fails(folder.start("ulimit -f 8", score + "a --measurement margin"), 1, "File too large");
  CHECK(folder.read("a/run.json") == a);
  CHECK(folder.run("inspect a").status == 0);
  CHECK(folder.run(score + "a").out.find("already complete") != std::string::npos);
  check_fails(folder.run(score + "a --measurement logit"), 1,
              "a holds an unfinished run with other settings; finish it ");
  CHECK(folder.run(score + "a --measurement margin").out.find("already complete") == std::string::npos);
  CHECK(folder.json("a/run.json")["options"]["measurement"] == "margin");
  CHECK(names_in(folder / "a") == Names{"run.json", "scores.safetensors"});
}

TEST_CASE("a checkpoint in which a bit has flipped is not scored") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string checkpoint = "run/finetune.safetensors", score = "score" + kFlags + "--method grad-dot --out out";
  const auto whole = folder.read(checkpoint);
  for (const auto place : {whole.size() - 8, whole.find("cross-entropy")}) {  // a last digit; the record
    flip(folder, checkpoint, place);
    check_fails(less_warnings(folder.run(score)), 1, checkpoint + " is not as whence wrote it");
    folder.write(checkpoint, whole);
  }
  CHECK(folder.run(score).status == 0);
}

TEST_CASE("whatever input of a result changes, no reader takes it for the same") {
  const ToolFolder folder;
  folder.write("warned.toml", folder.pipeline("weight-decay = 1e-2", "weight-decay = 1e-3"));
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string rank = "rank" + kFlags + "--method grad-dot --out out";
  REQUIRE(folder.run(rank).status == 0);
  const auto key = folder.json("out/run.json")["key"];
  const auto theta = read_safetensors(folder / "run/pretrain.safetensors");
  for (const char* input : {"pipeline.toml", "pretrain.safetensors", "finetune.safetensors", "queries.safetensors",
                            "run/pretrain.safetensors", "run/finetune.safetensors"}) {
    CAPTURE(input);
    const auto bytes = folder.read(input);
    if (std::string(input) == "pipeline.toml") {
      folder.write(input, bytes + "# \n");
    } else {
      auto tensors = read_safetensors(folder / input);
      auto values = tensors.values();
      for (auto& value : values) {
        value = value.is_floating_point() ? value * 1.0001 : value;
      }
      auto metadata = read_safetensors_metadata(folder / input);
      metadata.erase("sha256");  // as a program that writes them again on purpose
      write_safetensors(folder / input, tensors.with(values), metadata);
    }
    for (const char* reader : {"report out", "evaluate pipeline.toml --scores out --examples 2 --quiet"}) {
      check_fails(folder.run(reader), 1, std::string(fs::path(input).filename()) + " has changed since");
    }
    const auto again = folder.run("score" + kFlags + "--method grad-dot --out again");
    CAPTURE(again.err);
    CHECK(again.status == 0);
    CHECK(folder.json("again/run.json")["key"] != key);
    folder.write(input, bytes);
  }
  CHECK(folder.run("report out").status == 0);
  for (const char* option : {"--measurement margin", "--seed 4", "--limit-queries 4", "--normalize cosine",
                             "--measurement logit", "--self"}) {
    const std::string base =
        std::string(option) == "--self" ? " pipeline.toml --stage pretrain --dtype float64 --quiet " : kFlags;
    REQUIRE(folder.run("score" + base + "--method grad-dot --out again " + option).status == 0);
    CHECK(folder.json("again/run.json")["key"] != key);
  }

  // a checkpoint that was trained otherwise than the pipeline says is told wherever its scores are
  folder.write("pipeline.toml", folder.read("warned.toml"));
  REQUIRE(folder.run(rank).status == 0);
  for (const auto& [reader, status] :
       {std::pair("rank" + kFlags + "--method grad-dot --out out --strict", 4), std::pair(std::string("report out"), 0),
        std::pair(std::string("evaluate pipeline.toml --scores out --examples 2 --strict"), 4)}) {
    const auto result = folder.run(reader);
    CAPTURE(reader);
    CHECK(result.status == status);
    CHECK(contains(result.err, "whence: warning: stage pretrain: its checkpoint "));
  }
}

TEST_SUITE_END();
