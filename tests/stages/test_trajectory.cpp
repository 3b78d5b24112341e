// What training leaves behind of its way: snapshots, their times, and the same bits after an interruption.
#include <cmath>

#include "support/near.h"
#include "support/tool.h"
#include "whence/stages/pipeline.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;
namespace fs = std::filesystem;

namespace {

const std::string kLbfgs = "optimizer = \"lbfgs:max-iterations=2000,tolerance=1e-9\"";

/// The folder's pipeline with this optimizer and so many snapshots at its first stage.
Pipeline pipeline_with(const test::ToolFolder& folder, const std::string& optimizer, int snapshots) {
  folder.write("way.toml",
               folder.pipeline(kLbfgs, fmt::format("optimizer = \"{}\"\nsnapshots = {}", optimizer, snapshots)));
  return Pipeline(folder / "way.toml", {.dtype = at::kDouble});
}

std::vector<std::string> snapshot_bytes(const Pipeline& pipeline) {
  std::vector<std::string> out;
  for (const auto& file : pipeline.snapshot_files(0)) {
    out.push_back(read_text(file));
  }
  out.push_back(read_text(pipeline.stages()[0].checkpoint));
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("snapshots cut training into equal segments, whose time is the sum of their learning rates") {
  const test::ToolFolder folder;
  const auto pipeline =
      pipeline_with(folder, "sgd:max-iterations=10,learning-rate=0.1,batch-size=50,momentum=0.5,schedule=linear", 4);
  pipeline.train(0, {});
  const auto stage = pipeline.load(1)[0];
  REQUIRE(stage.trajectory.size() == 4);
  const std::int64_t ends[] = {2, 5, 7, 10};
  std::int64_t begin = 0;
  for (std::size_t k = 0; k < 4; ++k) {
    const auto& snapshot = stage.trajectory[k];
    CHECK(snapshot.iteration == ends[k]);
    CHECK(snapshot.steps == ends[k] - begin);
    double time = 0;
    for (auto i = begin; i < ends[k]; ++i) {
      time += 0.1 * (1 - static_cast<double>(i) / 10) / 0.5;
    }
    CHECK(snapshot.time == doctest::Approx(time).epsilon(1e-12));
    CHECK(snapshot.preconditioner.empty());
    begin = ends[k];
  }
  CHECK(relative_error(stage.trajectory[3].theta, stage.theta) == 0);
  CHECK(relative_error(stage.trajectory[2].theta, stage.theta) > 1e-6);
  // and they change nothing of the training itself
  const auto whole = folder.read("run/pretrain.safetensors");
  pipeline_with(folder, "sgd:max-iterations=10,learning-rate=0.1,batch-size=50,momentum=0.5,schedule=linear", 0)
      .train(0, {});
  CHECK(folder.read("run/pretrain.safetensors") == whole);
}

TEST_CASE("adam's snapshots hold what it multiplies gradients by") {
  const test::ToolFolder folder;
  const std::string spec = "adam:learning-rate=0.01,batch-size=50,schedule=constant,max-iterations=";
  const auto pipeline = pipeline_with(folder, spec + "6", 2);
  pipeline.train(0, {});
  const auto stage = pipeline.load(1)[0];
  REQUIRE(stage.trajectory.size() == 2);
  CHECK(stage.trajectory[0].time == doctest::Approx(0.03));
  const auto half = create<Optimizer>(spec + "3");
  // the start of the same training, by the optimizer alone
  TrainingState state{clone(pipeline.untrained(1)[0].theta), 0, {}};
  half->minimise(stage.objective, {}, state, Random(3).stream("training of stage pretrain"), {});
  CHECK(relative_error(stage.trajectory[0].theta, state.theta) == 0);
  TensorList expected;
  for (const auto& square : state.memory[1]) {
    expected.push_back(1 / ((square / (1 - std::pow(0.999, 3))).sqrt() + 1e-8));
  }
  REQUIRE(expected.size() == state.theta.size());
  CHECK(relative_error(stage.trajectory[0].preconditioner, expected) < Tolerance::kSameAlgebra);
}

TEST_CASE("interrupted after any iteration, training goes on to the same snapshots") {
  for (const std::string spec : {"sgd:max-iterations=9,batch-size=50", "adam:max-iterations=9,batch-size=50"}) {
    const test::ToolFolder folder;
    const auto pipeline = pipeline_with(folder, spec, 3);
    pipeline.train(0, {});
    const auto expected = snapshot_bytes(pipeline);
    REQUIRE(expected.size() == 4);  // the last of three snapshots is the checkpoint, which is there once more
    for (std::int64_t stop = 1; stop <= 9; ++stop) {
      CAPTURE(stop);
      fs::remove_all(folder / "run");
      const auto interrupt = [&](const ProgressEvent& event) {
        if (event.done == stop) {
          throw Interrupted();
        }
      };
      CHECK_THROWS_AS(pipeline.train(0, interrupt), Interrupted);
      pipeline.train(0, {});
      CHECK(snapshot_bytes(pipeline) == expected);
    }
  }
}

TEST_CASE("snapshots that cannot be, are missing or of another training are errors with the remedy") {
  const test::ToolFolder folder;
  const auto refuses = [&](const std::string& optimizer, int snapshots, const char* reason) {
    CHECK_THROWS_WITH_AS(pipeline_with(folder, optimizer, snapshots).train(0, {}), doctest::Contains(reason),
                         InvalidArgument);
    CHECK_FALSE(fs::exists(folder / "run/pretrain.safetensors"));
  };
  refuses("lbfgs", 2, "stage pretrain: snapshots = 2 with optimizer lbfgs: its steps have no learning rate");
  refuses("sgd:tolerance=1e-3", 2, "option tolerance = 0.001 ends it at an iteration that is not known before");
  refuses("sgd:max-iterations=3", 4, "snapshots = 4, expected at most training's 3 iterations");

  const auto pipeline = pipeline_with(folder, "sgd:max-iterations=6", 3);
  pipeline.train(0, {});
  const auto files = pipeline.snapshot_files(0);
  REQUIRE(files.size() == 3);
  CHECK(files[1].filename() == "pretrain.snapshot-2.safetensors");
  const auto fewer = pipeline_with(folder, "sgd:max-iterations=6", 2);
  CHECK_THROWS_WITH_AS(fewer.load(1), doctest::Contains("is not where the training of"), DataError);
  const auto second = folder.read("run/pretrain.snapshot-2.safetensors");
  pipeline_with(folder, "sgd:max-iterations=6,learning-rate=0.02", 3).train(0, {});
  pipeline.load(1);  // weights are as they are, and their snapshots with them
  folder.write("run/pretrain.snapshot-2.safetensors", second);
  CHECK_THROWS_WITH_AS(pipeline.load(1), doctest::Contains("pretrain.snapshot-2.safetensors is of another training"),
                       DataError);
  fs::remove(files[1]);
  CHECK_THROWS_WITH_AS(pipeline.load(1), doctest::Contains("pretrain.snapshot-2.safetensors: run whence train"),
                       DataError);
  folder.write("run/pretrain.snapshot-2.safetensors", "{}");
  CHECK_THROWS_WITH_AS(pipeline.load(1), doctest::Contains("pretrain.snapshot-2.safetensors"), DataError);
}

TEST_SUITE_END();
