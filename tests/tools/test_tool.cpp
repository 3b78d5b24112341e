// The binary, run as a user would: arguments in; standard output, standard error, status and files out.
#include <algorithm>
#include <csignal>

#include "support/near.h"
#include "support/stale_warning.h"
#include "support/tool.h"
#include "whence/store/ranking.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::check_fails;
using test::less_stale_warning;
using test::ToolFolder;
namespace fs = std::filesystem;

TEST_SUITE_BEGIN("tools");

TEST_CASE("train, rank, evaluate, report, inspect: the whole way on a small chain") {
  const ToolFolder folder;
  auto result = folder.run("train pipeline.toml --dtype float64 --quiet");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.err.empty());
  CHECK(result.out.find("pretrain     trained") != std::string::npos);
  CHECK(result.out.find("finetune     trained") != std::string::npos);
  const auto first = folder.read("run/pretrain.safetensors");

  result = folder.run("train pipeline.toml --dtype float64 --json --strict");
  CHECK(result.status == 0);
  const auto told = nlohmann::json::parse(result.out);
  REQUIRE(told.size() == 2);
  for (const auto& stage : told) {
    CHECK(stage["trained"] == false);
    CHECK(stage["relative-gradient-norm"].get<double>() < 1e-7);
  }
  CHECK(folder.read("run/pretrain.safetensors") == first);

  result = folder.run(
      "rank pipeline.toml --stage pretrain --queries test --top 3 --out result --dtype float64 --quiet --strict");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.out.find("query 0: row 0 of queries.safetensors; predicts ") != std::string::npos);
  CHECK(result.out.find("largest relative residual") != std::string::npos);
  const auto rankings = read_rankings(folder / "result/ranking.jsonl");
  const auto scores = read_scores(folder / "result");
  REQUIRE(rankings.size() == 5);
  REQUIRE(scores.stages[0].scores.sizes() == at::IntArrayRef({5, 200}));
  for (std::int64_t q = 0; q < 5; ++q) {
    const auto& ranking = rankings[static_cast<std::size_t>(q)];
    CHECK(ranking.proponents.size() == 3);
    CHECK(ranking.proponents[0].score == doctest::Approx(scores.stages[0].scores[q].min().item<double>()));
    CHECK(ranking.proponents[0].removal.value() == doctest::Approx(-ranking.proponents[0].score / 200));
    CHECK(ranking.opponents[0].score == doctest::Approx(scores.stages[0].scores[q].max().item<double>()));
  }
  const auto run = folder.json("result/run.json");
  CHECK(run["stages"]["finetune"]["relative-gradient-norm"].get<double>() < 1e-7);
  CHECK(run["stages"]["pretrain"]["solves"].size() == 5);
  CHECK(run["stages"]["finetune"]["solves"].size() == 5);  // the sweep passes it
  CHECK(run["inputs"].size() == 6);
  CHECK(run["options"]["curvature"].get<std::string>().starts_with("hessian:"));
  CHECK(run["options"]["solver"] == "auto:relative-tolerance=0.01,max-iterations=1000");
  CHECK(run["options"]["asked"]["curvature"] == "auto");
  CHECK(run["stages"]["pretrain"]["solver"] == "direct");
  CHECK(run["chosen"]["reason"].get<std::string>().find("is a minimum") != std::string::npos);

  result = folder.run("evaluate pipeline.toml --stage pretrain --scores result --examples 12 --quiet");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto evaluation = folder.json("result/evaluation.json");
  CHECK(evaluation["pearson"].get<double>() > 0.97);
  CHECK(evaluation["slope"].get<double>() == doctest::Approx(1).epsilon(0.25));
  CHECK(evaluation["points"].size() == 60);
  CHECK(folder.read("result/evaluation.svg").find("<svg") != std::string::npos);
  result = folder.run("evaluate pipeline.toml --stage pretrain --scores result --against lds --subsets 30 --quiet");
  REQUIRE(result.status == 0);
  const auto lds = folder.json("result/evaluation-lds.json");
  CHECK(result.out.find(" s a training, the largest |gradient| at the end ") != std::string::npos);
  CHECK(result.out.find(lds["verdict"].get<std::string>()) != std::string::npos);
  CHECK(lds["lds"].get<double>() > lds["lds-of-random-scores"].get<double>() + 0.3);

  result = folder.run("report result");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto page = folder.read("result/report.html");
  CHECK(page.find("Agreement with leave-one-out retraining") != std::string::npos);
  CHECK(page.find("Linear datamodelling score") != std::string::npos);

  for (const char* what : {"result", "pipeline.toml", "run/pretrain.safetensors"}) {
    result = folder.run(std::string("inspect ") + what);
    CHECK(result.status == 0);
    CHECK(nlohmann::json::parse(folder.run(std::string("inspect --json ") + what).out).contains("kind"));
  }
}

TEST_CASE("score: resumable, reused, replayed from run.json, every stage in one sweep") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string base = "score pipeline.toml --queries test --dtype float64 --quiet --solver direct ";
  REQUIRE(folder.run(base + "--stage pretrain --query-block 2 --out one").status == 0);
  REQUIRE(folder.run(base + "--stage all --query-block 2 --out all").status == 0);
  const auto one = read_scores(folder / "one"), all = read_scores(folder / "all");
  REQUIRE(all.stages.size() == 2);
  CHECK(all.stages[0].name == "scores.pretrain");
  CHECK(test::relative_error(all.stages[0].scores, one.stages[0].scores) < 1e-12);
  const auto blocks = folder.run(base + "--stage pretrain --out blocks --batch-size 7 --query-block 5 --threads 1");
  CHECK(test::relative_error(read_scores(folder / "blocks").stages[0].scores, one.stages[0].scores) < 1e-10);

  const auto bytes = folder.read("one/scores.safetensors");
  auto result = folder.run(base + "--stage pretrain --query-block 2 --out one");
  CHECK(result.out.find("already complete") != std::string::npos);
  result = folder.run("score --from one/run.json --out two --quiet");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(folder.read("two/scores.safetensors") == bytes);
  result = folder.run("score --from one/run.json --out three --quiet --measurement margin");
  REQUIRE(result.status == 0);
  CHECK(folder.json("three/run.json")["options"]["measurement"] == "margin");

  // A full disk: nothing under the final name; with room again the same command finishes to the same bytes.
  result = folder.start("ulimit -f 1", base + "--stage pretrain --query-block 2 --out full");
  CHECK(result.status == 1);
  CHECK(result.err.find("File too large") != std::string::npos);
  CHECK_FALSE(fs::exists(folder / "full/scores.safetensors"));
  REQUIRE(folder.run(base + "--stage pretrain --query-block 2 --out full").status == 0);
  CHECK(folder.read("full/scores.safetensors") == bytes);
}

TEST_CASE("an interrupted training leaves no checkpoint, exits 130 or 143, and goes on to the same bits") {
  const ToolFolder folder;
  const std::string command = "train slow.toml --stage pretrain --dtype float64 --quiet";
  const auto slow =
      folder.pipeline("optimizer = \"lbfgs:max-iterations=2000,tolerance=1e-9\"\ncheckpoint = \"run/pretrain",
                      "optimizer = \"adam:max-iterations=3000,learning-rate=1e-3,batch-size=8\"\n"
                      "snapshots = 30\ncheckpoint = \"run/pretrain");
  folder.write("slow.toml", slow);
  REQUIRE(folder.run(command).status == 0);
  const auto whole = folder.read("run/pretrain.safetensors");
  for (const auto& [name, status] : {std::pair{"INT", 130}, std::pair{"TERM", 143}}) {
    CAPTURE(name);
    fs::remove_all(folder / "run");
    // the signal comes after the hundredth iteration, which leaves a snapshot, and long before the last
    const int raw = std::system(fmt::format("cd '{}' && {{ '{}' {} 2>err.txt & "
                                            "until [ -e run/pretrain.snapshot-1.safetensors ] || ! kill -0 $!; do "
                                            "sleep 0.01; done; kill -s {} $!; wait $!; }}",
                                            folder.path().string(), WHENCE_TOOL, command, name)
                                    .c_str());
    REQUIRE(WEXITSTATUS(raw) == status);
    CHECK(folder.read("err.txt").starts_with("whence: interrupted: "));
    CHECK_FALSE(fs::exists(folder / "run/pretrain.safetensors"));
    CHECK(fs::exists(folder / "run/pretrain.safetensors.unfinished"));
    REQUIRE(folder.run(command).status == 0);
    CHECK(folder.read("run/pretrain.safetensors") == whole);
    CHECK_FALSE(fs::exists(folder / "run/pretrain.safetensors.unfinished"));
  }
}

TEST_CASE("usage errors exit 2 with one line and the nearest known word") {
  const ToolFolder folder;
  check_fails(folder.run(""), 2, "a command is missing");
  check_fails(folder.run("trane"), 2, "did you mean \"train\"?");
  check_fails(folder.run("train"), 2, "PIPELINE is missing");
  check_fails(folder.run("train pipeline.toml --threds 2"), 2, "did you mean \"--threads\"?");
  check_fails(folder.run("train pipeline.toml more"), 2, "too many arguments");
  check_fails(folder.run("rank pipeline.toml --queries test"), 2, "--stage is missing");
  check_fails(folder.run("rank pipeline.toml --stage pretrain --queries test --dtype float16"), 2, "unknown --dtype");
  check_fails(folder.run("rank pipeline.toml --stage pretrain --queries test --top 0"), 2, "--top = 0, expected >= 1");
  check_fails(folder.run("evaluate pipeline.toml --stage pretrain --scores x --against retrain"), 2,
              "did you mean \"retraining\"?");
  for (const char* command :
       {"", "train", "rank", "score", "kernel", "evaluate", "report", "merge", "inspect", "methods"}) {
    const auto result = folder.run(std::string(command) + " --help");
    CHECK(result.status == 0);
    CHECK(result.out.find("Usage: whence") != std::string::npos);
  }
  CHECK(folder.run("--version").out.starts_with("whence "));
}

TEST_CASE("bad input: one line, exit 1, nothing written") {
  const ToolFolder folder;
  const auto with = [&](const std::string& from, const std::string& to, const std::string& part) {
    folder.write("bad.toml", folder.pipeline(from, to));
    check_fails(folder.run("train bad.toml --quiet"), 1, part);
    CHECK_FALSE(fs::exists(folder / "run/pretrain.safetensors"));
  };
  check_fails(folder.run("train missing.toml"), 1, "cannot read missing.toml: No such file");
  with("[model]", "[model", "bad.toml: line ");
  with("weight-decay", "weight-dekay", "stage pretrain: unknown key \"weight-dekay\"; did you mean \"weight-decay\"?");
  with("weight-decay = 1e-2", "weight-decay = -1", "weight-decay = -1, expected a number >= 0");
  with("mlp:widths=6", "mlp:width=6", "did you mean \"widths\"?");
  with("mlp:", "mpl:", "unknown model \"mpl\"; did you mean \"mlp\"?");
  with("lbfgs:max", "lbfg:max", "unknown optimizer \"lbfg\"; did you mean \"lbfgs\"?");
  with("full:proximity=0.1", "full:proximty=0.1",
       "stage finetune: full: unknown option \"proximty\"; did you mean \"proximity\"?");
  with("name = \"finetune\"", "name = \"pretrain\"", "another stage has that name");
  with("file = \"pretrain.safetensors\"", "file = \"gone.safetensors\"", "gone.safetensors: No such file");
  with("format = \"safetensors\"", "format = \"safetensor\"", "did you mean \"safetensors\"?");
  with("checkpoint = \"run/finetune.safetensors\"", "checkpoint = \"run/pretrain.safetensors\"",
       "another stage has the checkpoint");
  with("weight-decay = 1e-2", "weight-decay = 1e-2\ntuning = \"head\"", "needs a stage before it");

  const auto nan_data = [&](double value) {
    ParameterSet tensors;
    auto inputs = at::ones({3, 4}, at::kDouble);
    inputs[1][2] = value;
    tensors.add("inputs", inputs);
    tensors.add("targets", at::tensor({0L, 1L, 0L}));
    write_safetensors(folder / "nan.safetensors", tensors);
  };
  nan_data(NAN);
  with("file = \"pretrain.safetensors\"", "file = \"nan.safetensors\"", "nan.safetensors");
  {
    const auto bytes = folder.read("pretrain.safetensors");
    folder.write("short.safetensors", bytes.substr(0, bytes.size() - 9));
    with("file = \"pretrain.safetensors\"", "file = \"short.safetensors\"", "short.safetensors");
  }
  {
    ParameterSet wide;
    wide.add("inputs", at::ones({6, 7}, at::kDouble));
    wide.add("targets", at::tensor({0L, 1L, 0L, 1L, 0L, 1L}));
    write_safetensors(folder / "wide.safetensors", wide);
    folder.write("wide.toml", folder.pipeline("file = \"finetune.safetensors\"", "file = \"wide.safetensors\""));
    check_fails(folder.run("train wide.toml --quiet"), 1,
                "stage finetune: body.0.weight would be [6, 7] for its data, but stage pretrain hands on [6, 4]");
  }
}

TEST_CASE("bad checkpoints, dampings and results: one line, nothing half-written") {
  const ToolFolder folder;
  check_fails(folder.run("rank pipeline.toml --stage pretrain --queries test"), 1,
              "has no checkpoint at run/pretrain.safetensors: run whence train");
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string rank = "rank pipeline.toml --stage pretrain --queries test --dtype float64 --quiet --out result ";
  check_fails(folder.run(rank + "--damping -1"), 1, "--damping = -1, expected >= 0");
  check_fails(folder.run(rank + "--solver cgg"), 1, "did you mean \"cg\"?");
  check_fails(folder.run(rank + "--measurement logits"), 1, "did you mean \"logit\"?");
  check_fails(folder.run("rank pipeline.toml --stage pretran --queries test"), 1, "did you mean \"pretrain\"?");
  check_fails(folder.run("rank pipeline.toml --stage pretrain --queries tset"), 1, "did you mean \"test\"?");
  check_fails(folder.run("report nowhere"), 1, "nowhere");

  const auto good = folder.read("run/finetune.safetensors"), good_start = folder.read("run/pretrain.safetensors");
  auto tensors = read_safetensors(folder / "run/pretrain.safetensors");
  auto draws = Random(5);
  auto values = tensors.values();
  for (auto& value : values) {
    value = 2 * draws.normal(value.sizes());  // far from any minimum
  }
  write_safetensors(folder / "run/pretrain.safetensors", tensors.with(values));
  const auto indefinite = less_stale_warning(folder.run(rank + "--curvature hessian --damping 0"));
  check_fails(indefinite, 1, "the Hessian has negative curvature");
  check_fails(indefinite, 1, "type --damping ");
  check_fails(folder.run(rank + "--damping some"), 2, "--damping = some, expected auto, training or a number >= 0");
  CHECK_FALSE(fs::exists(folder / "result/scores.safetensors"));
  CHECK(folder.run(rank + "--curvature hessian").status == 0);  // the damping that outweighs it is found
  CHECK(folder.json("result/run.json")["options"]["damping"].get<double>() > 0);
  const std::string loud = "score pipeline.toml --stage pretrain --queries test --dtype float64 --out loud";
  const auto first = folder.run(loud + " --strict");
  CAPTURE(first.err);
  CHECK(first.status == 4);
  CHECK(first.err.find("whence: curvature gauss-newton, solver direct, damping 1 x mean eigenvalue (pretrain ") !=
        std::string::npos);
  CHECK(first.err.find("the checkpoint is no minimum (|gradient| ") != std::string::npos);
  CHECK(first.err.find("--curvature hessian for the Hessian") != std::string::npos);
  CHECK(folder.json("loud/run.json")["options"]["asked"]["damping"] == "auto");
  CHECK(folder.json("loud/run.json")["options"]["relative-damping"] == 1);
  CHECK(folder.run(loud).out.find("already complete") != std::string::npos);
  CHECK(folder.run(rank + "--curvature gauss-newton --strict").status == 4);

  values[0] = values[0].clone().fill_(NAN);
  write_safetensors(folder / "run/pretrain.safetensors", tensors.with(values));
  check_fails(less_stale_warning(folder.run(rank + "--curvature gauss-newton")), 1, "run/pretrain.safetensors");
  folder.write("run/pretrain.safetensors", good_start);
  folder.write("run/finetune.safetensors", good.substr(0, good.size() / 2));
  check_fails(folder.run(rank), 1, "run/finetune.safetensors");

  folder.write("run/finetune.safetensors", good);
  fs::remove_all(folder / "result");
  REQUIRE(folder.run(rank).status == 0);
  folder.write("result/ranking.jsonl", "{\"query\": 1,");
  check_fails(folder.run("report result"), 1, "ranking.jsonl");
  check_fails(folder.run(rank), 1, "result/ranking.jsonl was changed since whence wrote it: remove it");
  fs::remove(folder / "result/ranking.jsonl");
  REQUIRE(folder.run(rank).status == 0);
  folder.write_data("queries.safetensors", 5, 77);
  check_fails(folder.run("evaluate pipeline.toml --stage pretrain --scores result"), 1,
              "queries.safetensors has changed since this was made");
}

TEST_CASE("methods lists every room, and what it lists can be made") {
  const ToolFolder folder;
  const auto all = nlohmann::json::parse(folder.run("methods --json").out);
  CHECK(all["solvers"].size() >= 3);
  CHECK(all["data"].size() >= 5);
  std::size_t options = 0;
  for (const auto& [room, methods] : all.items()) {
    CAPTURE(room);
    CHECK_FALSE(methods.empty());
    for (const auto& method : methods) {
      CHECK_FALSE(method["summary"].get<std::string>().empty());
      for (const auto& option : method["options"]) {
        CHECK_FALSE(option["help"].get<std::string>().empty());
        ++options;
      }
    }
  }
  CHECK(options > 50);
  CHECK(folder.run("methods solvers").out.find("relative-tolerance") != std::string::npos);
  check_fails(folder.run("methods solver"), 1, "did you mean \"solvers\"?");
}

TEST_SUITE_END();
