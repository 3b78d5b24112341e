// `whence kernel`, `--method kernel` and the page that joins results, through the binary.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "support/near.h"
#include "support/tool.h"
#include "tools/icl.h"
#include "whence/store/ranking.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::check_fails;
using test::has;
using test::last_line;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

/// The fine-tune of the folder's pipeline, trained in float64, with twenty queries.
void train_finetune(const ToolFolder& folder, const std::string& pipeline = "") {
  folder.write_data("queries.safetensors", 20, 2);
  if (!pipeline.empty()) {
    folder.write("pipeline.toml", pipeline);
  }
  const auto result = folder.run("train pipeline.toml --dtype float64 --quiet");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
}

/// A pipeline of one stage that stays near its start: nearly linear in what it trains.
std::string one_wide_layer(const std::string& rate) {
  return fmt::format(R"(seed = 3
[model]
spec = "mlp:widths=128,activation=tanh"
[[stage]]
name = "finetune"
train = {{ format = "safetensors", file = "finetune.safetensors" }}
optimizer = "sgd:epochs=40,learning-rate={},batch-size=60"
checkpoint = "run/finetune.safetensors"
[queries.test]
data = {{ format = "safetensors", file = "queries.safetensors" }}
)",
                     rate);
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("kernel: matrices, tests and a verdict, as a whole result that is found again") {
  const ToolFolder folder;
  train_finetune(folder);
  const std::string command = "kernel pipeline.toml --stage finetune --dtype float64 --out kernel --examples 30";
  auto result = folder.run(command + " --quiet --ranks 1,8");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  CHECK(result.out.starts_with("entk kernel at the start of finetune, 30 of 100 examples, 20 queries, 3 outputs\n"));
  const auto json = folder.json("kernel/kernel.json");
  CHECK(last_line(result.out) == json["verdict"].get<std::string>());
  CHECK(folder.json("kernel/run.json")["verdict"] == json["verdict"]);
  const auto kernels = read_safetensors(folder / "kernel/kernel.safetensors");
  const auto train_kernel = kernels.at("train"), queries = kernels.at("queries");
  CHECK(train_kernel.sizes() == at::IntArrayRef({30, 3, 30, 3}));
  CHECK(queries.sizes() == at::IntArrayRef({20, 3, 30, 3}));
  CHECK(c10::isFloatingType(train_kernel.scalar_type()));
  CHECK(train_kernel.element_size() == 8);
  const auto matrix = train_kernel.reshape({90, 90});
  CHECK(test::relative_error(matrix, matrix.t()) < 1e-12);
  CHECK(at::linalg_eigvalsh(matrix).min().item<double>() > -1e-9 * matrix.norm().item<double>());
  CHECK(json["examples"].size() == 30);
  CHECK(json["of-examples"] == 100);
  CHECK(json["held-out"] == true);
  for (const char* key : {"before", "after", "linearised", "kernel", "kernel-otherwise", "leave-one-out"}) {
    CAPTURE(key);
    CHECK(json["skill"][key].get<double>() >= 0);
    CHECK(json["skill"][key].get<double>() <= 1);
  }
  CHECK(json["tests"]["fixed"]["holds"] == (json["feature-change"]["relative"].get<double>() < 2));
  CHECK(json["tests"]["linear"]["threshold"] == 0.5);
  REQUIRE(json["low-rank"].size() == 2);
  for (const auto& rank : json["low-rank"]) {
    CHECK(rank["worst"].get<double>() <= rank["epsilon"].get<double>());
  }
  CHECK(json["low-rank"][1]["mean"].get<double>() < json["low-rank"][0]["mean"].get<double>());
  const auto written_at = [&] {
    return fs::last_write_time(folder / "kernel/kernel.safetensors").time_since_epoch().count();
  };
  const auto written = written_at();
  CHECK(folder.run(command + " --quiet --ranks 1,8").out == result.out);
  CHECK(written_at() == written);

  result = folder.run(command + " --plan");
  CHECK(result.status == 0);
  CHECK(has(result.out, "features-end"));
  CHECK(has(result.out, "time "));
  REQUIRE(folder.run("report kernel").status == 0);
  const auto page = folder.read("kernel/report.html");
  CHECK(has(page, "Is finetune in the kernel regime?"));
  CHECK(has(page, "linearised"));
  CHECK(folder.run("inspect kernel").status == 0);
}

TEST_CASE("kernel: a fine-tune that hardly moves is in the regime, one far from its start is not") {
  const ToolFolder folder;
  folder.write_data("finetune.safetensors", 60, 1);
  train_finetune(folder, one_wide_layer("0.05"));
  auto result = folder.run("kernel pipeline.toml --quiet --dtype float64 --out near");
  CAPTURE(result.err);
  CAPTURE(result.out);
  REQUIRE(result.status == 0);
  const auto near = folder.json("near/kernel.json");
  CHECK(near["level"] == "in");
  CHECK(has(near["verdict"], "; its influence in closed form: whence rank pipeline.toml --method kernel"));
  CHECK(near["feature-change"]["relative"].get<double>() < 2);
  CHECK(near["share-of-move"]["linearised"].get<double>() > 0.9);
  CHECK(near["feature-change"]["frobenius"].get<double>() < 0.5);
  const ToolFolder other;  // two narrow layers, trained to a minimum far away
  train_finetune(other, other.pipeline("tuning = \"full:proximity=0.1\"\nweight-decay = 1e-2",
                                       "tuning = \"full\"\nweight-decay = 1e-5"));
  result = other.run("kernel pipeline.toml --quiet --dtype float64 --out far --examples 40");
  CAPTURE(result.out);
  REQUIRE(result.status == 0);
  const auto far = other.json("far/kernel.json");
  CHECK(far["level"] != "in");
  CHECK_FALSE(has(far["verdict"], "closed form"));
  CHECK(far["share-of-move"]["linearised"].get<double>() < near["share-of-move"]["linearised"].get<double>());
  CHECK(far["feature-change"]["frobenius"].get<double>() > near["feature-change"]["frobenius"].get<double>());
}

TEST_CASE("kernel: what a result has of the start serves another fine-tune from there, and no other kernel") {
  const ToolFolder folder;
  folder.write_data("finetune.safetensors", 60, 1);
  train_finetune(folder, one_wide_layer("0.05"));
  const std::string command = "kernel pipeline.toml --dtype float64 --out ";
  REQUIRE(folder.run(command + "out").status == 0);
  const auto before = read_safetensors(folder / "out/kernel.safetensors").at("train").clone();
  folder.write("pipeline.toml", one_wide_layer("0.1"));
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet --force").status == 0);
  const auto again = folder.run(command + "out"), anew = folder.run(command + "anew");
  CAPTURE(again.err);
  REQUIRE(again.status == 0);
  CHECK(has(again.err, "3 kernel matrices, 2 of them as out has them"));
  CHECK(has(anew.err, "3 kernel matrices, about"));
  CHECK(read_safetensors(folder / "out/kernel.safetensors").at("train").equal(before));
  auto kept = folder.json("out/kernel.json"), made = folder.json("anew/kernel.json");
  for (auto* json : {&kept, &made}) {
    json->erase("seconds");
    json->erase("peak-bytes");
  }
  CHECK(kept == made);
  // the features at 128 outputs: of 42 examples, the first of each class in turn
  REQUIRE(folder.run(command + "end --at end").status == 0);
  const auto targets = read_safetensors(folder / "finetune.safetensors").at("targets");
  TensorList rows;
  for (std::int64_t turn = 0; rows.size() < 42; ++turn) {
    for (std::int64_t label = 0; label < 3 && rows.size() < 42; ++label) {
      const auto of_class = targets.eq(label).nonzero().squeeze(1);
      if (turn < of_class.numel()) {
        rows.push_back(of_class.narrow(0, turn, 1));
      }
    }
  }
  const auto chosen = at::cat(rows);
  const auto at_rows = [&](const at::Tensor& kernel) { return kernel.index_select(0, chosen).index_select(2, chosen); };
  const auto start = at_rows(before), end = at_rows(read_safetensors(folder / "end/kernel.safetensors").at("train"));
  CHECK(kept["feature-change"]["examples"] == 42);
  CHECK(kept["feature-change"]["relative"].get<double>() ==
        doctest::Approx(((end - start).abs().mean() / start.abs().mean()).item<double>()).epsilon(1e-9));
  for (const char* flags : {" --filter biases", " --at end", " --kernel signgd", " --examples 30"}) {
    CAPTURE(flags);
    fs::remove_all(folder / "copy");
    fs::copy(folder / "out", folder / "copy", fs::copy_options::recursive);
    const auto other = folder.run(command + "copy" + flags);
    CAPTURE(other.err);
    REQUIRE(other.status == 0);
    CHECK_FALSE(has(other.err, "of them as"));
  }
  fs::copy(folder / "out", folder / "fewer", fs::copy_options::recursive);
  CHECK(has(folder.run(command + "fewer --limit-queries 17").err, "3 kernel matrices, 1 of them as fewer has them"));
}

TEST_CASE("kernel: signs, both directions, filters, the end, solvers and an interruption") {
  const ToolFolder folder;
  train_finetune(folder);
  const std::string command = "kernel pipeline.toml --dtype float64 --quiet --examples 18 --limit-queries 5 ";
  for (const char* flags :
       {"--kernel signgd", "--kernel a-signgd", "--at end", "--filter biases", "--solver least-squares --from-start",
        "--solver kernel-logistic", "--solver support-vectors"}) {
    CAPTURE(flags);
    const auto result = folder.run(command + flags + " --out out");
    CAPTURE(result.err);
    CHECK(result.status == 0);
    CHECK(folder.json("out/kernel.json")["level"] == "too few");  // five queries tell no skill
    fs::remove_all(folder / "out");
  }
  CHECK(folder.run(command + "--kernel signgd --out signs").status == 0);
  const auto signs = read_safetensors(folder / "signs/kernel.safetensors").at("train");
  CHECK(at::equal(signs, signs.round()));
  check_fails(folder.run(command + "--kernel ntk --out x"), 1, "ntk");
  check_fails(folder.run(command + "--solver cg --out x"), 1, "cg");
  check_fails(folder.run(command + "--filter heads --out x"), 1, "heads");
  check_fails(folder.run(command + "--at middle --out x"), 2, "--at = middle, expected start or end");
  check_fails(folder.run(command + "--ranks 0 --out x"), 2, "--ranks = 0");
  check_fails(folder.run(command + "--ranks 4,5000 --out x"), 2, "--ranks = 5000, expected at most 1024");
  check_fails(folder.run(command + "--outputs difference --out x"), 2,
              "--outputs difference is of two classes, and stage finetune has 3: leave it out");
  check_fails(folder.run(command + "--stage pretrain --queries test --out x"), 1, "queries are of the last stage");
  check_fails(folder.run(command), 2, "--out");
  check_fails(folder.run(command + "--kernel a-signgd --solver kernel-logistic --out x"), 2,
              "--solver kernel-logistic takes a symmetric kernel, and a-signgd is none");
  const auto stopped = folder.run(command + "--solver kernel-logistic:max-iterations=1 --strict --out stopped");
  CHECK(stopped.status == 4);
  CHECK(has(stopped.err, "stage finetune: the regression with the kernel did not converge: 1 Newton step, largest"));
  check_fails(folder.run(command + "--solver least-squares:tolerance=1 --out x"), 1,
              "least-squares: tolerance = 1 leaves none of the kernel's directions");
  fs::remove_all(folder / "x");
  // a solver that fails leaves the kernels to another
  CHECK(folder.run(command + "--solver support-vectors:form=svc --from-start --out other").status != 0);
  CHECK(folder.run(command + "--out other").status == 0);
  CHECK_FALSE(fs::exists(folder / "other/.whence-partial"));
  CHECK(!fs::exists(folder / "x"));
  folder.write("two.toml", folder.read("pipeline.toml") +
                               "[queries.more]\ndata = { format = \"safetensors\", file = \"queries.safetensors\" }\n");
  check_fails(folder.run("kernel two.toml --out x"), 2, "--queries is missing: two.toml has more, test");
}

TEST_CASE("kernel: of a head that began at the regression on all labels no leave-one-out is told") {
  const ToolFolder folder;
  train_finetune(folder,
                 folder.pipeline("tuning = \"full:proximity=0.1\"", "tuning = \"full\"\nhead-start = \"regression\""));
  const std::string command = "kernel pipeline.toml --dtype float64 --quiet --examples 18 --limit-queries 5 ";
  REQUIRE(folder.run(command + "--out start").status == 0);
  const auto start = folder.json("start/kernel.json");
  CHECK(start["skill"]["leave-one-out"].is_null());
  CHECK(has(start["solver-notes"].back().get<std::string>(), "the head began at a regression on the labels"));
  REQUIRE(folder.run(command + "--at end --out end").status == 0);
  CHECK(folder.json("end/kernel.json")["skill"]["leave-one-out"].is_number());
}

TEST_CASE("kernel: a run that was killed midway goes on to the same bytes") {
  const ToolFolder folder;
  train_finetune(folder);
  const std::string command = "kernel pipeline.toml --stage finetune --dtype float64 --quiet --out ";
  REQUIRE(folder.run(command + "whole").status == 0);
  // the kill comes when the first kernel is made, with those of the queries and of the end still to do
  const int raw = std::system(fmt::format("cd '{}' && {{ '{}' {}cut >out.txt 2>&1 & "
                                          "until [ -e cut/.whence-partial/train/made.safetensors ] || ! kill -0 $!; do "
                                          "sleep 0.01; done; kill -s KILL $!; wait $!; }} 2>err.txt",
                                          folder.path().string(), WHENCE_TOOL, command)
                                  .c_str());
  REQUIRE(WEXITSTATUS(raw) == 137);
  CHECK(!fs::exists(folder / "cut/kernel.safetensors"));
  REQUIRE(folder.run(command + "cut").status == 0);
  CHECK(folder.read("cut/kernel.safetensors") == folder.read("whole/kernel.safetensors"));
  CHECK(!fs::exists(folder / "cut/.whence-partial"));
}

TEST_CASE("kernel: a stage without its start, one class, what is too large, and tokens") {
  const ToolFolder folder;
  train_finetune(folder);
  const std::string command = "kernel pipeline.toml --quiet --out out";
  check_fails(folder.run(command + " --seed 4"), 1, "its training began with seed 3, and the seed is 4: use --seed 3");
  check_fails(folder.run(command + " --examples 1"), 1, "1 example, expected at least two");
  // the same weights from elsewhere: nothing says what the head began with
  ParameterSet foreign;
  const auto held = read_safetensors(folder / "run/finetune.safetensors");
  for (std::size_t i = 0; i < held.size(); ++i) {
    foreign.add(held.names()[i], held.values()[i].clone());
  }
  write_safetensors(folder / "run/finetune.safetensors", foreign);
  check_fails(folder.run(command), 1, "where its training began is not known");
  ParameterSet one;
  one.add("inputs", Random(1).normal({20, 4}));
  one.add("targets", at::zeros({20}, at::kLong));
  write_safetensors(folder / "one.safetensors", one);
  const std::string file = "file = \"finetune.safetensors\" }";
  folder.write("one.toml", folder.pipeline(file, "file = \"one.safetensors\", classes = [0, 1, 2] }"));
  fs::remove(folder / "run/finetune.safetensors");
  check_fails(folder.run("train one.toml --dtype float64 --quiet"), 1, "no example of one.safetensors has label 1");
  folder.write_data("many.safetensors", 5000, 1);
  folder.write("many.toml", folder.pipeline(file, "file = \"many.safetensors\" }"));
  fs::remove(folder / "run/finetune.safetensors");
  REQUIRE(folder.run("train many.toml --quiet").status == 0);
  check_fails(folder.run("kernel many.toml --quiet --out many --examples 5000"), 1, "5000");  // 15000 rows to solve for
  check_fails(folder.run("kernel many.toml --quiet --out many --examples 3000 --memory-limit 1GiB"), 1,
              "3000 examples of 3 outputs take");
  CHECK(folder.run("kernel many.toml --quiet --out many --plan").status == 0);
  const auto told = folder.run("kernel many.toml --plan --json");
  CHECK(nlohmann::json::parse(told.out)["examples"] == 341);  // 1024 rows, where nobody says
}

TEST_CASE("rank --method kernel: scores, self-influence and leave-one-outs, and what it says of itself") {
  const ToolFolder folder;
  train_finetune(folder);
  const std::string command = "rank pipeline.toml --stage finetune --dtype float64 --quiet --limit-queries 3 ";
  auto result = folder.run(command + "--method kernel --out scores");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto rankings = read_rankings(folder / "scores/ranking.jsonl");
  REQUIRE(rankings.size() == 3);
  CHECK(rankings[0].proponents[0].removal.value() == doctest::Approx(-rankings[0].proponents[0].score / 100));
  REQUIRE(folder.run(command + "--method kernel:leave-one-out --out exact").status == 0);
  const auto scores = read_scores(folder / "scores").stages[0].scores,
             exact = read_scores(folder / "exact").stages[0].scores;
  const auto x = scores.flatten() - scores.mean(), y = exact.flatten() - exact.mean();
  CHECK((x * y).sum().item<double>() / (x.norm() * y.norm()).item<double>() > 0.95);  // the first order of the exact
  const std::string own = "rank pipeline.toml --stage finetune --self --quiet --dtype float64 --method kernel";
  CHECK(folder.run(own).status == 0);
  result = folder.run(own + ":at=end");
  CHECK(result.status == 0);
  CHECK(has(result.err, "stage finetune: its kernel is taken at the end of training"));
  result = folder.run(
      "score pipeline.toml --stage all --dtype float64 --quiet --limit-queries 2 --method kernel --out "
      "all");
  CAPTURE(result.err);
  CHECK(result.status == 0);
  CHECK(read_scores(folder / "all").stages[0].scores.abs().max().item<double>() > 0);
  check_fails(folder.run(command + "--method kernel --normalize cosine"), 1, "normalize = cosine with kernel");
}

TEST_CASE("report joins results of the same queries on one page, each with its verdict, and refuses others") {
  const test::IclFolder folder;
  folder.write("task.json", test::icl_task().dump());
  folder.write("texts.tsv",
               "text\tlabel\ngood film\tup\ndull film\tdown\nbright\tup\nsad end\tdown\nhappy "
               "end\tup\ngrey\tdown\n");
  folder.write("asked.tsv", "text\tlabel\nA film\tup\nnothing else\tdown\nthe end\tdown\n");
  folder.write("texts.toml", R"([model]
checkpoint = "tiny"
[[stage]]
name = "tune"
train = { format = "tsv", file = "texts.tsv", text = "text", label = "label" }
weight-decay = 1e-1
optimizer = "adam:epochs=5"
checkpoint = "run/tune.safetensors"
[queries.asked]
data = { format = "tsv", file = "asked.tsv", text = "text", label = "label" }
)");
  const auto run = [&](const std::string& command) {
    const auto result = folder.run(command);
    CAPTURE(command);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
  };
  run("train texts.toml --quiet");
  run("icl --model tiny --task task.json --quiet --out prompt");
  run("rank texts.toml --quiet --out influence");
  run("rank texts.toml --quiet --method grad-dot --out dot");
  run("report prompt influence dot --out page.html");
  const auto page = folder.read("page.html");
  CHECK(has(page, "influence: examples of tune, by influence"));
  CHECK(has(page, "dot: examples of tune, by grad-dot"));
  CHECK(has(page, "of its 3 queries 2 are asked of every result here"));
  CHECK(has(page, "What the demonstrations of"));
  CHECK(has(page, "demonstration 0"));
  CHECK(has(page, folder.json("influence/run.json")["verdict"].get<std::string>().substr(0, 12)));
  CHECK(!has(page, "nothing else"));  // a query that the prompt was not asked
  CHECK(has(page, "id=\"demonstration-0-0\""));
  check_fails(folder.run("report prompt influence"), 2, "--out is missing");
  run("kernel texts.toml --quiet --filter no-embeddings --out kernel");
  run("report prompt influence kernel --out page.html");
  CHECK(has(folder.read("page.html"), "Is tune in the kernel regime?"));
  check_fails(folder.run("report prompt kernel --out page.html"), 1, "none of the others is of its pipeline");
  folder.write("asked.tsv", "text\tlabel\nquite another\tup\n");
  run("rank texts.toml --quiet --out other");
  check_fails(folder.run("report prompt other --out page.html"), 1,
              "prompt and other are of no query in common (3 and 1 of them)");
  run("rank texts.toml --quiet --self --out self");
  check_fails(folder.run("report other self --out page.html"), 1, "of no query in common");
}

TEST_SUITE_END();
