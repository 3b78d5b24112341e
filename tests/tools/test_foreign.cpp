// What is said about checkpoints that whence did not train: how to check a ranking of them, and whether they guess.
#include "../tools/comparison_verdict.h"
#include "../tools/verdict.h"
#include "support/contents.h"
#include "support/tool.h"

using namespace whence;
using test::check_fails;
using test::contains;
using test::last_line;
using test::ToolFolder;

namespace {

const std::string kAdam = "adam:learning-rate=1e-2,epochs=4,batch-size=20",
                  kSaysAdam = "optimizer = \"" + kAdam + "\"\n";

/// A pipeline of one stage, of which `says` is a part, whose checkpoint was trained elsewhere; `scale` multiplies its
/// head.
void write_foreign(const ToolFolder& folder, const std::string& says, double scale = 1,
                   const std::string& trained_by = kSaysAdam) {
  const auto text = [](const std::string& more) {
    return "[model]\nspec = \"mlp:widths=6,activation=tanh\"\n[[stage]]\nname = \"fit\"\ntrain = { format = "
           "\"safetensors\", file = \"pretrain.safetensors\", limit = 80 }\nweight-decay = 1e-2\n" +
           more + "[queries.test]\ndata = { format = \"safetensors\", file = \"queries.safetensors\" }\n";
  };
  folder.write("own.toml", text(trained_by + "checkpoint = \"own.safetensors\"\n"));
  std::filesystem::remove(folder / "own.safetensors");
  REQUIRE(folder.run("train own.toml --quiet").status == 0);
  ParameterSet weights;
  const auto own = read_safetensors(folder / "own.safetensors");
  for (std::size_t i = 0; i < own.size(); ++i) {
    weights.add(own.names()[i], own.values()[i] * (own.names()[i].starts_with("head.") ? scale : 1.0));
  }
  write_safetensors(folder / "theirs.safetensors", weights);
  folder.write("theirs.toml", text(says + "checkpoint = \"theirs.safetensors\"\n"));
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("a checkpoint from elsewhere: every check asks how it was trained, and goes on by that") {
  const ToolFolder folder;
  write_foreign(folder, "");
  const std::string ask = "to check: say how it was trained in [[stage]] fit, as in optimizer = \"",
                    rank = "rank theirs.toml --quiet ", further = "--against further-training";
  for (const std::string flags : {"", "--method trak --measurement margin", "--method grad-dot --stage all"}) {
    CAPTURE(flags);
    const auto verdict = last_line(folder.run(rank + flags).out);
    CHECK(contains(verdict, ask));
    CHECK(verdict.ends_with(further + " --out DIR"));  // whose trainings are kept where it is stopped
    CHECK(contains(verdict, "--measurement margin") == contains(flags, "margin"));
  }
  const std::string far = "far from its checkpoint (the queries' mean loss is ";
  // the ranking stands where no spot check can be made
  const auto left = folder.run(rank + "--method grad-dot --spot-check 3 --out out");
  REQUIRE(left.status == 0);
  CHECK(contains(left.err, "whence: warning: the spot check is left out: stage fit: how it was trained is not said"));
  CHECK(contains(left.err, far));
  CHECK(last_line(left.out) == last_line(folder.run(rank + "--method grad-dot --out plain").out));
  CHECK(folder.read("out/ranking.jsonl") == folder.read("plain/ranking.jsonl"));
  CHECK(folder.run("report out").status == 0);
  CHECK(folder.run(rank + "--method grad-dot --spot-check 3 --out out --strict").status == 4);
  const std::string evaluate = "evaluate theirs.toml --quiet ";
  check_fails(folder.run(evaluate + "--scores out --against lds --subsets 3"), 1, far);
  for (const std::string truth : {"further-training --examples 3", "mislabel"}) {
    CAPTURE(truth);
    const auto refused = folder.run(evaluate + "--methods grad-dot --out table --against " + truth);
    CHECK(refused.status == 1);
    CHECK(contains(refused.err, far));
  }
  // by another optimizer's few steps, and those favour a method
  const std::string by_sgd = further + " --examples 12 --no-ceiling --optimizer sgd:learning-rate=0.01,epochs=1";
  auto table = folder.run(evaluate + "--methods grad-dot " + by_sgd);
  CAPTURE(table.err);
  CHECK(contains(table.out, "trainings from the checkpoint by sgd:learning-rate=0.01,epochs=1"));
  CHECK(last_line(table.out).starts_with("with care: "));
  CHECK(contains(last_line(table.out), "favours grad-dot"));

  write_foreign(folder, kSaysAdam);
  const auto verdict = last_line(folder.run(rank + "--method grad-dot --stage all").out);
  CHECK(contains(verdict, "to check: whence evaluate theirs.toml --queries test --methods grad-dot " + further));
  table = folder.run(evaluate + "--methods grad-dot --no-ceiling --examples 12 " + further + " --out by-adam");
  CHECK(folder.json("by-adam/evaluation.json")["goes-on-by"] == kAdam);
  CHECK(folder.json("by-adam/evaluation.json")["reference-apart"].get<double>() > 0.01);
  CHECK(contains(table.out, "with every example they move the queries' measurements by "));
  CHECK_FALSE(contains(table.out, "favours"));
  const auto spot = folder.run(rank + "--method grad-dot --spot-check 9");
  CHECK(contains(last_line(spot.out), "of training that goes on from the checkpoint by " + kAdam));

  // where the minimum is near, retraining finds it
  write_foreign(folder, "", 1, "");
  CHECK(folder.run(rank + "--method grad-dot --spot-check 3").status == 0);
}

TEST_CASE("a checkpoint that is no better than a guess on its own examples is told") {
  const ToolFolder folder;
  write_foreign(folder, kSaysAdam, -3);
  const std::string guess = "stage fit: its checkpoint is no better than a guess on its own examples: mean loss ";
  for (const std::string command : {"rank theirs.toml", "rank theirs.toml --self", "inspect theirs.toml",
                                    "evaluate theirs.toml --methods grad-dot --examples 3"}) {
    CAPTURE(command);
    const auto run = folder.run(command + " --strict");
    CHECK(run.status == 4);
    CHECK(contains(run.err, guess));
    CHECK(contains(run.err, "% are right, and the most frequent class is "));
    if (command.starts_with("rank")) {
      CHECK(last_line(run.out).starts_with("cannot be trusted: the checkpoint of fit is no better than a guess"));
      CHECK(
          contains(last_line(run.out), "; look at how their inputs are scaled (mean, std, standardize), at the order"));
    }
  }
  write_foreign(folder, kSaysAdam);
  for (const std::string command : {"rank theirs.toml --method grad-dot", "inspect theirs.toml"}) {
    CHECK_FALSE(contains(folder.run(command).err, "guess"));
  }
}

TEST_CASE("a share of the ceiling counts by its interval") {
  const auto result = [](double low, double high) {
    return cli::Json{{"against", "lds"},
                     {"stage", "fit"},
                     {"table",
                      {{{"method", "influence"},
                        {"rank", "whence rank"},
                        {"lds", 0.4},
                        {"lds-interval-95", {0.3, 0.45}},
                        {"share-of-ceiling", 0.82},
                        {"share-interval-95", {low, high}},
                        {"seconds", 1.0}}}}};
  };
  const auto truth = create<cli::Truth>("lds");
  const auto wide = cli::verdict_of_comparison(result(0.4, 0.97), *truth);
  CHECK(wide.text.starts_with("with care: "));
  CHECK(contains(wide.text, "0.82 (95 % 0.40 to 0.97) of what retraining itself reaches with another seed"));
  CHECK(contains(wide.text, "whether it reaches 0.8 of that cannot be told yet: more --subsets would"));
  const auto narrow = cli::verdict_of_comparison(result(0.805, 0.83), *truth);
  CHECK(narrow.text.starts_with("can be trusted: "));
  CHECK_FALSE(contains(narrow.text, "cannot be told"));
  CHECK_FALSE(contains(cli::verdict_of_comparison(result(0.5, 0.7), *truth).text, "cannot be told"));
}

TEST_CASE("retraining that ends far from the checkpoint decides nothing, nor do other steps of sgd than the stage's") {
  cli::Json found{{"against", "retraining"}, {"stage", "fit"},      {"examples", 30},
                  {"pearson", 0.97},         {"slope", 1.0},        {"pearson-interval-95", {0.94, 0.99}},
                  {"spearman", 0.9},         {"reference-apart", 0}};
  CHECK(cli::verdict_of_evaluation({found, "e"}).level == Verdict::Level::kTrusted);
  found["reference-apart"] = 2.5;
  const auto far = cli::verdict_of_evaluation({found, "e"});
  CHECK(far.level == Verdict::Level::kCare);
  CHECK(contains(far.text, "far from its checkpoint (the queries' measurements differ by 2.5 of their size)"));
  found["goes-on-by"] = "sgd:learning-rate=0.01,epochs=1";
  CHECK(cli::verdict_of_evaluation({found, "e"}).level == Verdict::Level::kTrusted);
  found["as-trained"] = false;
  const auto favoured = cli::verdict_of_evaluation({found, "e"});
  CHECK(favoured.text.starts_with("with care: Pearson 0.97"));
  CHECK(contains(favoured.text,
                 "by sgd:learning-rate=0.01,epochs=1; steps of sgd go along examples' gradients, which "
                 "favours grad-dot"));
}

TEST_SUITE_END();
