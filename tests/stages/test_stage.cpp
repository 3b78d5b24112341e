// A chain made of its parts, without a pipeline file.
#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"

using namespace whence;

namespace {

StageParts parts_of(const std::string& name, std::int64_t width = 3) {
  return {.name = name,
          .model = create<Model>("mlp:widths=4"),
          .loss = create<Loss>("cross-entropy"),
          .data = test::toy_data("cross-entropy", 12, width, Random(3)),
          .weight_decay = 0.05};
}

void check_refused(StageParts parts, const Chain& before, const char* why) {
  CAPTURE(why);
  CHECK_THROWS_WITH_AS(begin_stage(std::move(parts), before, Random(1)), doctest::Contains(why), InvalidArgument);
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("a stage begins where its seed and the stage before say, in the type of its data") {
  Chain chain{begin_stage(parts_of("first"), {}, Random(1))};
  CHECK(test::relative_error(begin_stage(parts_of("first"), {}, Random(1)).theta, chain[0].theta) == 0);
  CHECK(test::relative_error(begin_stage(parts_of("first"), {}, Random(2)).theta, chain[0].theta) > 0.1);
  auto next = parts_of("second");
  next.tuning = create<Tuning>("head");
  chain.push_back(begin_stage(next, chain, Random(1)));
  CHECK(test::relative_error(chain[1].parent, chain[0].handed_on().values()) == 0);
  CHECK(chain[1].objective.trained().names() == std::vector<std::string>{"head.weight", "head.bias"});
  auto narrow = parts_of("first");
  narrow.data = narrow.data.to(at::kFloat, at::kCPU);
  for (const auto& value : begin_stage(narrow, {}, Random(1)).theta) {
    CHECK((value.scalar_type() == at::kFloat));
  }
}

TEST_CASE("a first stage that tunes a trained model has the model's body for its parent, and a full one has none") {
  const auto first = [](const char* tuning, bool starts_trained) {
    auto parts = parts_of("first");
    parts.tuning = create<Tuning>(tuning);
    parts.starts_trained = starts_trained;
    return begin_stage(std::move(parts), {}, Random(1));
  };
  const auto full = first("full", true);
  CHECK(full.parent.empty());
  const auto start = full.objective.trained().with(full.theta);
  for (const char* tuning : {"head", "lora:rank=2", "full:proximity=0.1"}) {
    CAPTURE(tuning);
    CHECK_THROWS_WITH_AS(first(tuning, false), doctest::Contains("stage first: "), InvalidArgument);
    const auto stage = first(tuning, true);
    CHECK(stage.objective.parent_layout().names() == Head().body(start).names());
    CHECK(test::relative_error(stage.parent, Head().body(start).values()) == 0);
    const auto batch = stage.objective.data().batch(0, 12);
    CHECK(at::equal(stage.objective.output(stage.theta, stage.parent, batch),
                    full.objective.output(full.theta, full.parent, batch)));
    CHECK(disconnections({stage}).empty());
  }
}

TEST_CASE("parts that are missing or do not fit are refused with the stage's name") {
  auto without_loss = parts_of("first");
  without_loss.loss = nullptr;
  check_refused(without_loss, {}, "stage first: expected a model, a loss, a tuning, an optimizer and data");
  auto without_data = parts_of("first");
  without_data.data = {};
  check_refused(without_data, {}, "stage first: expected a model, a loss, a tuning, an optimizer and data");
  auto head = parts_of("first");
  head.tuning = create<Tuning>("head");
  check_refused(head, {}, "stage first: head: a stage that trains only its head needs a stage before it");
  const Chain chain{begin_stage(parts_of("first"), {}, Random(1))};
  check_refused(parts_of("second", 5), chain,
                "stage second: body.0.weight would be [4, 5] for its data, but stage first hands on [4, 3]");
  auto linear = parts_of("flat");
  linear.model = create<Model>("linear");
  const Chain flat{begin_stage(linear, {}, Random(1))};
  check_refused(linear, flat, "stage flat: this model has no body, so stage flat hands nothing on to it");
}

TEST_CASE("training ends at a minimum; what stops it leaves the stage as it was") {
  auto stage = begin_stage(parts_of("only"), {}, Random(1));
  const auto start = stage.theta;
  CHECK_THROWS_AS(train(stage, Random(1), [](const ProgressEvent&) { throw Interrupted(); }), Interrupted);
  CHECK(test::relative_error(stage.theta, start) == 0);
  const auto summary = train(stage, Random(1));
  CHECK(summary.converged);
  CHECK(stationarity(stage.objective, stage.theta, stage.parent).gradient_norm < 1e-5);
  CHECK(test::relative_error(stage.theta, start) > 0.1);
}

TEST_SUITE_END();
