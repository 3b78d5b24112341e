// `whence train` when there is something to say before training, or nothing to train.
#include "support/near.h"
#include "support/tool.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/stages/pipeline.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

const std::string kDecay = "weight-decay = 1e-2";
const std::string kOtherwise = "was trained otherwise";

bool says(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

/// The folder, trained.
ToolFolder& train(ToolFolder& folder) {
  const auto done = folder.run("train pipeline.toml --dtype float64");
  CAPTURE(done.err);
  REQUIRE(done.status == 0);
  REQUIRE(!says(done.err, kOtherwise));
  return folder;
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("train says what is disconnected before it trains anything") {
  const ToolFolder folder;
  auto text = folder.pipeline("tuning = \"full:proximity=0.1\"", "tuning = \"full\"");
  text.insert(text.find(kDecay),
              "snapshots = 2\n");  // which lbfgs does not keep: training the first stage ends at once
  folder.write("cut.toml", text);
  const auto cut = folder.run("train cut.toml");
  CHECK(cut.status == 1);
  const auto warning = cut.err.find("stage finetune: nothing in its objective depends on stage pretrain");
  REQUIRE(warning != cut.err.npos);
  CHECK(says(cut.err, "tuning = \"full:proximity=0.1\""));
  CHECK(warning < cut.err.find("snapshots = 2 with optimizer"));

  const ToolFolder strict;
  strict.write("cut.toml", strict.pipeline("tuning = \"full:proximity=0.1\"", "tuning = \"full\""));
  CHECK(strict.run("train cut.toml --strict").status == 4);
  CHECK(strict.run("train pipeline.toml --strict --force").status == 0);
}

TEST_CASE("train says of a classifier that is no better than guessing that there is little to explain") {
  const ToolFolder folder;
  const auto trained = [&](const std::string& optimizer) {
    folder.write("guess.toml", folder.pipeline("lbfgs:max-iterations=2000,tolerance=1e-9", optimizer));
    return folder.run("train guess.toml --stage pretrain --force");
  };
  const auto far = trained("adam:learning-rate=100,max-iterations=2");  // steps far past every minimum
  CHECK(far.status == 0);
  CHECK(says(far.err, "stage pretrain: its mean loss "));
  CHECK(says(far.err, "is no lower than that of guessing by how frequent each class is ("));
  CHECK(!says(trained("lbfgs:max-iterations=4").err, "guessing"));  // no minimum yet, and better than that
}

TEST_CASE("train finds stages that do not fit before it trains the first") {
  const ToolFolder folder;
  ParameterSet tensors;
  tensors.add("inputs", at::ones({8, 5}));
  tensors.add("targets", at::arange(8).remainder(2));
  write_safetensors(folder / "finetune.safetensors", tensors);
  check_fails(folder.run("train pipeline.toml --quiet"), 1, "but stage pretrain hands on [6, 4]");
  CHECK(!fs::exists(folder / "run/pretrain.safetensors"));
}

TEST_CASE("with nothing to do train reads no data and says what training said") {
  ToolFolder folder;
  const auto first = folder.run("train pipeline.toml --json");
  REQUIRE(first.status == 0);
  fs::remove(folder / "pretrain.safetensors");
  fs::remove(folder / "finetune.safetensors");
  const auto second = folder.run("train pipeline.toml --json");
  CAPTURE(second.err);
  REQUIRE(second.status == 0);
  const auto then = nlohmann::json::parse(first.out), now = nlohmann::json::parse(second.out);
  for (std::size_t k = 0; k < 2; ++k) {
    CHECK(then[k]["trained"] == true);
    CHECK(now[k]["trained"] == false);
    for (const char* key : {"iterations", "objective", "gradient-norm", "relative-gradient-norm"}) {
      CHECK(then[k][key] == now[k][key]);
    }
  }
  CHECK(says(folder.run("train pipeline.toml").out, "has a checkpoint  200 examples, "));
}

TEST_CASE("a checkpoint that was trained otherwise is kept, and the keys are said") {
  ToolFolder folder;
  train(folder);
  const auto bytes = folder.read("run/pretrain.safetensors");
  folder.write("pipeline.toml", folder.pipeline(kDecay, "weight-decay = 2e-2"));
  const auto told = folder.run("train pipeline.toml --dtype float64");
  CHECK(told.status == 0);
  CHECK(says(told.err, "weight-decay = 0.01, now 0.02"));
  CHECK(says(told.err, "--stage pretrain --force"));
  CHECK(!says(told.err, "stage finetune"));
  CHECK(folder.read("run/pretrain.safetensors") == bytes);
  CHECK(folder.run("train pipeline.toml --dtype float64 --strict").status == 4);
  // everything else that reads the checkpoint says so too
  CHECK(says(folder.run("rank pipeline.toml --stage pretrain --queries test --dtype float64").err, kOtherwise));

  CHECK(folder.run("train pipeline.toml --stage pretrain --force --dtype float64").status == 0);
  CHECK(folder.read("run/pretrain.safetensors") != bytes);
  const auto child = folder.run("train pipeline.toml --dtype float64");
  CHECK(says(child.err, "stage finetune"));
  CHECK(says(child.err, "stage pretrain has other weights"));
  CHECK(folder.run("train pipeline.toml --force --dtype float64").status == 0);
  CHECK(!says(folder.run("train pipeline.toml --dtype float64").err, kOtherwise));
}

TEST_CASE("what makes a checkpoint stale: data, loss, tuning; an optimizer only where it did not reach the minimum") {
  ToolFolder folder;
  train(folder);
  const auto after = [&](const std::string& from, const std::string& to) {
    folder.write("pipeline.toml", folder.pipeline(from, to));
    const auto told = folder.run("train pipeline.toml --dtype float64").err;
    folder.write("pipeline.toml", folder.pipeline());
    return told;
  };
  CHECK(says(after("proximity=0.1", "proximity=0.2"), "tuning = \"full:proximity=0.1\", now \"full:proximity=0.2\""));
  CHECK(says(after(kDecay, "loss = \"squared-error\"\n" + kDecay),
             "loss = \"cross-entropy:smoothing=0\", now \"squared-error\""));
  CHECK(says(after("file = \"pretrain.safetensors\"", "file = \"pretrain.safetensors\", limit = 150"),
             "train.limit = not given, now 150"));
  CHECK(says(after("widths=6,activation=tanh", "widths=6,activation=relu"), "model.spec = "));
  CHECK(after("file = \"pretrain.safetensors\"", "file = \"pretrain.safetensors\", limt = 150")
            .starts_with("whence: error: pipeline.toml: stage pretrain: safetensors: unknown key \"limt\""));
  CHECK(!says(after("max-iterations=2000", "max-iterations=3000"), kOtherwise));

  const auto bytes = folder.read("finetune.safetensors");
  folder.write("finetune.safetensors", bytes);  // newer, and the same
  CHECK(!says(folder.run("train pipeline.toml --dtype float64").err, kOtherwise));
  folder.write_data("finetune.safetensors", 100, 7);
  CHECK(says(folder.run("train pipeline.toml --dtype float64").err, "finetune.safetensors has changed"));

  folder.write("pipeline.toml", folder.pipeline("max-iterations=2000", "max-iterations=2"));
  CHECK(folder.run("train pipeline.toml --force --dtype float64").status == 0);
  CHECK(says(after("max-iterations=2000", "max-iterations=3"), "optimizer = "));
}

TEST_CASE("a checkpoint from elsewhere says nothing and is taken as it is") {
  ToolFolder folder;
  train(folder);
  const auto path = folder / "run/pretrain.safetensors";
  const auto tensors = read_safetensors(path).to(at::kDouble, at::kCPU);
  write_safetensors(path, tensors);
  const auto foreign = folder.read("run/pretrain.safetensors");
  folder.write("pipeline.toml", folder.pipeline(kDecay, "weight-decay = 2e-2"));
  const auto told = folder.run("train pipeline.toml --dtype float64");
  CHECK(told.status == 0);
  CHECK(!says(told.err, "stage pretrain: its checkpoint"));
  CHECK(says(told.out, "from elsewhere"));
  CHECK(says(folder.run("train pipeline.toml --dtype float64 --force").out, "never trained over"));
  CHECK(folder.read("run/pretrain.safetensors") == foreign);
}

TEST_CASE("unfinished training goes on only with all that it began with; --force begins anew") {
  const ToolFolder folder;
  const RunOptions wide{.dtype = at::kDouble};
  const fs::path unfinished = folder / "run/finetune.safetensors.unfinished";
  const auto interrupt = [](const ProgressEvent& event) {
    if (event.done == 4) {
      throw Interrupted();
    }
  };
  const auto text = folder.pipeline();
  Pipeline(folder / "pipeline.toml", wide).train(0, {});
  CHECK_THROWS_AS(Pipeline(folder / "pipeline.toml", wide).train(1, interrupt), Interrupted);
  REQUIRE(fs::exists(unfinished));
  const auto state = folder.read("run/finetune.safetensors.unfinished");
  const auto refused = [&](const std::string& part, const std::string& arguments = "--dtype float64") {
    check_fails(folder.run("train pipeline.toml --quiet --stage finetune " + arguments), 1, part);
    check_fails(folder.run("train pipeline.toml --quiet --stage finetune " + arguments), 1,
                "whence train pipeline.toml --stage finetune --force");
    CHECK(folder.read("run/finetune.safetensors.unfinished") == state);
    CHECK(!fs::exists(folder / "run/finetune.safetensors"));
  };
  // settings, of the stage and of the model, and how it is run
  const auto after = [&](const std::string& from, const std::string& to, const std::string& part) {
    auto other = text;
    other.replace(other.rfind(from), from.size(), to);  // in the last stage
    folder.write("pipeline.toml", other);
    refused(part);
    folder.write("pipeline.toml", text);
  };
  after(kDecay, "weight-decay = 2e-2", "began otherwise (weight-decay = 0.01, now 0.02)");
  after(kDecay, kDecay + "\nloss = \"squared-error\"", "loss = \"cross-entropy:smoothing=0\", now \"squared-error\"");
  after("proximity=0.1", "proximity=0.2", "tuning = ");
  after("max-iterations=2000", "max-iterations=2001", "optimizer = ");
  after("\"finetune.safetensors\" }", "\"finetune.safetensors\", limit = 99 }", "train.limit = not given, now 99");
  refused("(seed = 3, now 4)", "--dtype float64 --seed 4");
  refused("(dtype = \"Double\", now \"Float\"", "");
  // what files hold
  const auto data = folder.read("finetune.safetensors");
  auto tensors = read_safetensors(folder / "finetune.safetensors");
  auto labels = tensors.at("targets").clone();
  labels[99] = (labels[99] + 1).remainder(3);
  ParameterSet relabelled;
  relabelled.add("inputs", tensors.at("inputs").clone());
  relabelled.add("targets", labels);
  write_safetensors(folder / "finetune.safetensors", relabelled);
  refused("(finetune.safetensors has changed)");
  folder.write("finetune.safetensors", data);
  const auto parent = folder.read("run/pretrain.safetensors");
  const auto weights = read_safetensors(folder / "run/pretrain.safetensors");
  auto moved = weights.to(at::kDouble, at::kCPU).values();
  moved[0] += 1e-3;
  write_safetensors(folder / "run/pretrain.safetensors", weights.with(moved));
  refused("(stage pretrain has other weights)");
  CHECK(folder.run("train pipeline.toml --quiet --stage finetune --dtype float64 --force").status == 0);
  CHECK(!fs::exists(unfinished));
  const auto anew = folder.read("run/finetune.safetensors");
  fs::remove(folder / "run/finetune.safetensors");
  CHECK(folder.run("train pipeline.toml --quiet --stage finetune --dtype float64").status == 0);
  CHECK(folder.read("run/finetune.safetensors") == anew);

  // all as it was: it goes on, also where --force had begun over a checkpoint
  folder.write("run/pretrain.safetensors", parent);
  folder.write("run/finetune.safetensors.unfinished", state);
  std::int64_t first = -1;
  Pipeline(folder / "pipeline.toml", wide).train(1, [&](const ProgressEvent& event) {
    first = first < 0 ? event.done : first;
  });
  CHECK(first >= 4);
  const auto expected = folder.read("run/finetune.safetensors");
  CHECK(expected != anew);
  folder.write("run/finetune.safetensors", anew);
  folder.write("run/finetune.safetensors.unfinished", state);
  CHECK(folder.run("train pipeline.toml --quiet --dtype float64").status == 0);
  CHECK(folder.read("run/finetune.safetensors") == expected);
  CHECK(!fs::exists(unfinished));
  folder.write("run/finetune.safetensors.unfinished", state);
  CHECK(folder.run("train pipeline.toml --quiet --dtype float64 --force").status == 0);
  CHECK(folder.read("run/finetune.safetensors") == expected);
  CHECK(!fs::exists(unfinished));
}

TEST_CASE("a file that changes while it is trained on makes the checkpoint stale") {
  const ToolFolder folder;
  const Pipeline pipeline(folder / "pipeline.toml", {.dtype = at::kDouble});
  pipeline.train(0, [&](const ProgressEvent& event) {
    if (event.done == 4) {
      folder.write_data("pretrain.safetensors", 200, 7);
    }
  });
  CHECK(pipeline.changes(0) == std::vector<std::string>{"pretrain.safetensors has changed"});
  folder.write_data("pretrain.safetensors", 200, 0);
  CHECK(pipeline.changes(0).empty());
}

TEST_CASE("a changed file is told whatever the files' times say") {
  const ToolFolder folder;
  const Pipeline pipeline(folder / "pipeline.toml", {.dtype = at::kDouble});
  pipeline.train(0, {});
  folder.write_data("pretrain.safetensors", 200, 7);
  fs::last_write_time(folder / "run/pretrain.safetensors", fs::file_time_type::clock::now() + std::chrono::hours(1));
  CHECK(pipeline.changes(0) == std::vector<std::string>{"pretrain.safetensors has changed"});
}

TEST_CASE("a validation stops training early, and everything that reads the checkpoint says so") {
  const ToolFolder folder;
  folder.write_data("unseen.safetensors", 40, 9);
  const std::string validated =
      "validation = { format = \"safetensors\", file = \"unseen.safetensors\" }\npatience = 3\nvalidation-every = 4\n"
      "optimizer = \"adam:learning-rate=0.1,batch-size=20,epochs=40,schedule=constant\"\n";
  auto text = folder.pipeline();
  const auto place = text.rfind("optimizer = ");
  text.replace(place, text.find('\n', place) + 1 - place, validated);
  folder.write("pipeline.toml", text);
  const RunOptions wide{.dtype = at::kDouble};
  const auto done = folder.run("train pipeline.toml --dtype float64 --json");
  CAPTURE(done.err);
  REQUIRE(done.status == 0);
  const auto told = nlohmann::json::parse(done.out)[1]["validation"];
  REQUIRE(told["stopped-early"] == true);
  const std::int64_t kept = told["kept-after"], stopped = told["iterations"];
  CHECK(stopped == kept + 3 * 4);
  CHECK(stopped < 200);
  double lowest = INFINITY;
  for (const auto& at : told["measurements"]) {
    CHECK(at["accuracy"].is_number());
    if (at["loss"] < lowest) {
      lowest = at["loss"];
      CHECK(at["iteration"] <= kept);
    }
  }
  CHECK(says(done.err, fmt::format("its validation stopped training early and kept the parameters after {} of {}", kept,
                                   stopped)));
  const auto stage = Pipeline(folder / "pipeline.toml", wide).load()[1];
  const auto unseen = read_safetensors(folder / "unseen.safetensors");
  const auto outputs = stage.objective.output(
      stage.theta, stage.parent, Pipeline(folder / "pipeline.toml", wide).validation_data(1)->batch(0, 40));
  const auto chosen = outputs.log_softmax(1).gather(1, unseen.at("targets").to(at::kLong).unsqueeze(1));
  CHECK(lowest == doctest::Approx(-chosen.mean().item<double>()).epsilon(1e-9));
  // interrupted while it measures, a run goes on to the same bytes
  const auto expected = folder.read("run/finetune.safetensors");
  for (const std::int64_t at : {1, 3}) {
    fs::remove(folder / "run/finetune.safetensors");
    std::int64_t events = 0;
    CHECK_THROWS_AS(Pipeline(folder / "pipeline.toml", wide)
                        .train(1,
                               [&](const ProgressEvent& event) {
                                 if (says(event.detail, "validation, ") && ++events == at) {
                                   throw Interrupted();
                                 }
                               }),
                    Interrupted);
    REQUIRE(fs::exists(folder / "run/finetune.safetensors.unfinished"));
    Pipeline(folder / "pipeline.toml", wide).train(1, {});
    CHECK(folder.read("run/finetune.safetensors") == expected);
  }
  // what ranks by it
  const auto ranked = folder.run("rank pipeline.toml --stage finetune --queries test --dtype float64 --out out");
  CHECK(ranked.status == 0);
  CHECK(folder.json("out/run.json")["stages"]["finetune"]["validation"]["kept-after"] == kept);
  CHECK(says(folder.json("out/run.json")["warnings"].dump(), "its validation stopped training early"));
  CHECK(folder.json("out/run.json")["inputs"].contains((folder / "unseen.safetensors").string()));
  // what loads alone reads no validation, and finds how far from a minimum training ended
  fs::rename(folder / "unseen.safetensors", folder / "away.safetensors");
  const auto loaded = Pipeline(folder / "pipeline.toml", wide).load();
  fs::rename(folder / "away.safetensors", folder / "unseen.safetensors");
  for (const auto& ended : loaded) {
    REQUIRE(ended.measured);
    CHECK(ended.measured->of == stationarity_key(ended));
    CHECK(ended.measured->value.gradient_norm ==
          stationarity(ended.objective, ended.theta, ended.parent).gradient_norm);
  }
  // what has changed, and what is no pipeline
  folder.write_data("unseen.safetensors", 40, 10);
  CHECK(says(folder.run("train pipeline.toml --dtype float64").err, "unseen.safetensors has changed"));
  auto other = text;
  other.replace(other.find("patience = 3"), 12, "patience = 4");
  folder.write("pipeline.toml", other);
  CHECK(says(folder.run("train pipeline.toml --dtype float64").err, "patience = 3, now 4"));
  folder.write("pipeline.toml", folder.pipeline(kDecay, kDecay + "\npatience = 3"));
  check_fails(folder.run("train pipeline.toml"), 1, "patience = 3, which is for a stage with the key validation");
  text.insert(text.find("patience"), "snapshots = 2\n");
  folder.write("pipeline.toml", text);
  check_fails(folder.run("train pipeline.toml"), 1, "validation and snapshots = 2: expected one of the two");
}

TEST_CASE("weights that cannot be written are kept for the next run") {
  const ToolFolder folder;
  const Pipeline pipeline(folder / "pipeline.toml", {.dtype = at::kDouble});
  const auto in_the_way = folder / "run/pretrain.safetensors";
  const Progress block = [&](const ProgressEvent&) { fs::create_directories(in_the_way / "full"); };
  CHECK_THROWS_AS(pipeline.train(0, block), DataError);
  CHECK(!pipeline.is_trained(0));
  REQUIRE(fs::exists(folder / "run/pretrain.safetensors.unfinished"));
  fs::remove_all(in_the_way);
  std::int64_t steps = 0;
  const auto done = pipeline.train(0, [&](const ProgressEvent&) { ++steps; });
  CHECK(steps <= 1);  // it was at the end
  CHECK(done.stationarity.relative_gradient_norm < 1e-8);
  CHECK(!fs::exists(folder / "run/pretrain.safetensors.unfinished"));
  const auto kept = pipeline.load(1)[0].theta;
  fs::remove(folder / "run/pretrain.safetensors");
  pipeline.train(0, {});
  CHECK(test::relative_error(pipeline.load(1)[0].theta, kept) == 0);
}

TEST_SUITE_END();
