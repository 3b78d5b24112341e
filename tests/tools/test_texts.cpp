// Chains with text through the binary: a tiny GPT-2 trained on sentences, then on classes.
#include <cmath>

#include "support/near.h"
#include "support/tool.h"
#include "whence/store/ranking.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

void write_language(const ToolFolder& folder) {
  fs::create_directories(folder / "tiny");
  fs::copy_file(fs::path(WHENCE_TESTS) / "text/tokenizers/gpt2.json", folder / "tiny/tokenizer.json");
  const nlohmann::json config{{"model_type", "gpt2"}, {"vocab_size", 600}, {"n_embd", 8},
                              {"n_layer", 1},         {"n_head", 2},       {"n_positions", 24}};
  folder.write("tiny/config.json", config.dump());
  std::string corpus, labelled = "label\ttext\n";
  for (const char* animal : {"cat", "dog", "bird", "cow"}) {
    for (const char* act : {"sings", "runs", "sleeps"}) {
      corpus += fmt::format("{{\"text\": \"The {} {} all day long.\"}}\n", animal, act);
      labelled += fmt::format("{}\tA {} {}.\n", act[0] == 'r' ? "bad" : "good", animal, act);
    }
  }
  folder.write("corpus.jsonl", corpus);
  folder.write("labelled.tsv", labelled);
  folder.write("text.toml", R"([model]
checkpoint = "tiny"
[[stage]]
name = "pretrain"
train = { format = "jsonl", file = "corpus.jsonl" }
loss = "next-token:mean"
weight-decay = 1e-3
optimizer = "adamw:learning-rate=1e-2,epochs=10,batch-size=5,micro-batch=2,warm-up=3,decay=0,clip=1"
checkpoint = "run/pretrain"
[[stage]]
name = "finetune"
train = { format = "tsv", file = "labelled.tsv" }
tuning = "full:proximity=0.1"
weight-decay = 1e-3
optimizer = "adamw:learning-rate=1e-2,epochs=10,batch-size=4,decay=0"
checkpoint = "run/finetune"
[queries.test]
data = { format = "tsv", file = "labelled.tsv", limit = 3 }
)");
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("a chain on text: trained into Hugging Face directories, ranked by token, the same for any batch") {
  const ToolFolder folder;
  write_language(folder);
  REQUIRE(folder.run("train text.toml --quiet").status == 0);
  CHECK(fs::exists(folder / "run/pretrain/model.safetensors"));
  CHECK(folder.json("run/finetune/config.json")["architectures"][0] == "GPT2ForSequenceClassification");
  CHECK(folder.json("run/finetune/config.json")["label2id"]["good"] == 1);
  const auto kernel = folder.run("kernel text.toml --stage finetune --quiet --out kernel");  // from its start
  CAPTURE(kernel.err);
  CHECK(kernel.status == 0);
  const auto again = folder.run("train text.toml --quiet --json");
  CHECK(nlohmann::json::parse(again.out)[0]["trained"] == false);

  const std::string rank =
      "rank text.toml --stage all --queries test --top 2 --quiet --curvature gauss-newton --relative-damping 1 "
      "--solver cg:relative-tolerance=1e-6 --out ";  // rankings' own tolerance is wider than what is compared here
  auto result = folder.run(rank + "whole");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.out.find("all day long.") != std::string::npos);
  CHECK(result.out.find("query 0: row 0 of labelled.tsv; predicts ") != std::string::npos);
  CHECK(result.out.find(", expected good") != std::string::npos);
  const auto rankings = read_rankings(folder / "whole/ranking.jsonl");
  REQUIRE(rankings.size() == 6);
  for (const auto& ranking : rankings) {
    REQUIRE(ranking.proponents.size() == 2);
    for (const auto& entry : ranking.proponents) {
      double sum = 0;
      REQUIRE(!entry.tokens.empty());
      for (const auto& [text, score] : entry.tokens) {
        sum += score;
      }
      CHECK(sum == doctest::Approx(entry.score).epsilon(1e-3));
    }
  }
  REQUIRE(folder.run(rank + "single --batch-size 1").status == 0);
  const auto whole = read_scores(folder / "whole"), single = read_scores(folder / "single");
  REQUIRE_FALSE(whole.stages.empty());
  REQUIRE(single.stages.size() == whole.stages.size());
  for (std::size_t s = 0; s < whole.stages.size(); ++s) {
    CHECK(test::relative_error(whole.stages[s].scores, single.stages[s].scores) < 1e-4);
  }
  // what tokens add is known too where the scores were there before, or were made and not yet ranked
  const auto score = "score" + rank.substr(4, rank.find(" --top") - 4) + rank.substr(rank.find(" --quiet"));
  REQUIRE(folder.run(score + "after").status == 0);
  REQUIRE(folder.run(rank + "after").status == 0);
  CHECK(folder.read("after/ranking.jsonl") == folder.read("whole/ranking.jsonl"));
  const auto three = rank.substr(0, rank.find(" --top")) + " --top 3" + rank.substr(rank.find(" --quiet"));
  REQUIRE(folder.run(three + "whole").status == 0);  // some are known from the ranking before
  REQUIRE(folder.run(three + "three").status == 0);
  CHECK(folder.read("whole/ranking.jsonl") == folder.read("three/ranking.jsonl"));
  REQUIRE(folder.run("report whole").status == 0);
  CHECK(folder.read("whole/report.html").find("--share:45%") != std::string::npos);
  for (const char* method : {"grad-dot", "grad-cos", "rep-sim", "logra:rank=4", "influence"}) {
    CAPTURE(method);
    const std::string solver = std::string(method) == "influence" ? " --solver ekfac --curvature gauss-newton" : "";
    result =
        folder.run(fmt::format("score text.toml --stage pretrain --queries test --relative-damping 0.1 --method {}{} "
                               "--quiet --out {}",
                               method, solver, std::string(method).substr(0, 5)));
    CAPTURE(result.err);
    CHECK(result.status == 0);
  }
}

TEST_CASE("a query of tokens is shown with its perplexity, and special tokens are hidden") {
  const ToolFolder folder;
  write_language(folder);
  auto corpus = folder.read("corpus.jsonl");
  const std::string end = " all day long.";
  corpus.insert(corpus.find(end) + end.size(), "<|endoftext|>");
  folder.write("corpus.jsonl", corpus);
  const auto text = folder.read("text.toml");
  folder.write("one.toml", text.substr(0, text.find("[[stage]]\nname = \"finetune\"")) +
                               "[queries.test]\ndata = { format = \"jsonl\", file = \"corpus.jsonl\", limit = 2 }\n");
  REQUIRE(folder.run("train one.toml --quiet").status == 0);
  const auto result =
      folder.run("rank one.toml --stage pretrain --queries test --method grad-dot --top 12 --quiet --out out");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto rankings = read_rankings(folder / "out/ranking.jsonl");
  REQUIRE(rankings.size() == 2);
  const auto& prediction = rankings[0].prediction.value();
  CHECK(prediction.tokens > 5);
  CHECK(prediction.first_choices <= prediction.tokens);
  CHECK(std::log(prediction.perplexity) == doctest::Approx(rankings[0].measurement).epsilon(1e-4));  // a mean
  CHECK(result.out.find(fmt::format("perplexity {:.4g} over {} tokens", prediction.perplexity, prediction.tokens)) !=
        std::string::npos);
  CHECK(result.out.find("row 0 of corpus.jsonl") != std::string::npos);
  CHECK(result.out.find("endoftext") == std::string::npos);
  REQUIRE(folder.run("report out").status == 0);
  CHECK(folder.read("out/report.html").find("endoftext") == std::string::npos);
  CHECK(folder.read("out/ranking.jsonl").find("endoftext") != std::string::npos);  // its score is part of the sum
}

TEST_CASE("training of text goes on to the same bits, and mixed precision trains") {
  const ToolFolder folder;
  write_language(folder);
  REQUIRE(folder.run("train text.toml --stage pretrain --quiet").status == 0);
  const auto whole = folder.read("run/pretrain/model.safetensors");
  fs::remove_all(folder / "run/pretrain");
  REQUIRE(folder.run("train text.toml --stage pretrain --quiet").status == 0);
  CHECK(folder.read("run/pretrain/model.safetensors") == whole);
  auto text = folder.read("text.toml");
  const std::string from = "micro-batch=2,";
  text.replace(text.find(from), from.size(), "compute=bfloat16,");
  folder.write("mixed.toml", text);
  fs::remove_all(folder / "run/pretrain");
  const auto mixed = folder.run("train mixed.toml --stage pretrain --quiet --json");
  REQUIRE(mixed.status == 0);
  CHECK(nlohmann::json::parse(mixed.out)[0]["objective"].get<double>() < 5.5);  // log 600 = 6.4 at the start
  CHECK(folder.read("run/pretrain/model.safetensors") != whole);
}

TEST_CASE("text chains that cannot be are refused in one line") {
  const ToolFolder folder;
  write_language(folder);
  const auto text = folder.read("text.toml");
  const auto refuse = [&](const std::string& from, const std::string& to, const std::string& part) {
    auto bad = text;
    bad.replace(bad.find(from), from.size(), to);
    folder.write("bad.toml", bad);
    check_fails(folder.run("train bad.toml --quiet"), 1, part);
  };
  refuse("checkpoint = \"tiny\"", "checkpoint = \"nowhere\"", "nowhere/config.json");
  refuse("checkpoint = \"tiny\"", "checkpoint = \"tiny\"\nspec = \"linear\"", "expected one of the keys");
  refuse("checkpoint = \"tiny\"", "spec = \"linear\"", "expected a .safetensors file");
  refuse("loss = \"next-token:mean\"", "loss = \"masked-token\"", "predicts next tokens: use next-token");
  refuse("file = \"corpus.jsonl\"", "file = \"corpus.jsonl\", template = \"{txt}\"", "did you mean \"text\"?");
  refuse("file = \"corpus.jsonl\"", "file = \"corpus.jsonl\", classes = [\"a\"]", "key classes");
  folder.write("pipeline.toml",
               folder.pipeline("train = { format = \"safetensors\", file = \"pretrain.safetensors\" }",
                               "train = { format = \"jsonl\", file = \"corpus.jsonl\", label = \"text\" }"));
  check_fails(folder.run("train pipeline.toml --quiet"), 1, "corpus.jsonl: no column besides the label \"text\"");
}

TEST_SUITE_END();
