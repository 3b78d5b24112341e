#include <cmath>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/evaluate/guessing.h"

using namespace whence;

namespace {

/// A linear model of 100 examples, whose classes or values its inputs decide.
Stage decided(const std::string& loss, bool values) {
  Dataset::Contents contents;
  contents.inputs = Random(3).normal({100, 3});
  contents.ids = at::arange(100);
  const auto sum = contents.inputs.sum(1, true);
  if (values) {
    contents.targets = loss == "squared-error" ? 5 + sum : sum.gt(0).to(at::kDouble);
  } else {
    contents.targets = sum.gt(0).to(at::kLong).squeeze(1) + contents.inputs.select(1, 0).gt(1).to(at::kLong);
    contents.classes = {"a", "b", "c"};
  }
  auto out = begin_stage({.name = "fit",
                          .model = create<Model>("linear"),
                          .loss = create<Loss>(loss),
                          .data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU),
                          .weight_decay = 1e-3},
                         {}, Random(1));
  test::converge(out);
  return out;
}

Stage reversed(Stage stage) {
  for (auto& value : stage.theta) {
    value = -value;
  }
  return stage;
}

}  // namespace

TEST_SUITE_BEGIN("evaluate");

TEST_CASE("a model is set beside a guess that does not look at its examples") {
  for (const auto& [loss, values] : {std::pair{"cross-entropy", false},
                                     {"cross-entropy:smoothing=0.1", false},
                                     {"squared-error", false},
                                     {"squared-error", true},
                                     {"binary-cross-entropy", true}}) {
    CAPTURE(loss);
    CAPTURE(values);
    const auto stage = decided(loss, values);
    CHECK_FALSE(no_better_than_guess(stage));
    const auto beside = no_better_than_guess(reversed(stage));
    REQUIRE(beside);
    CHECK(beside->examples == 64);
    CHECK(beside->loss > beside->guess);
    CHECK(std::isnan(beside->accuracy) == values);
  }
  auto one = reversed(decided("cross-entropy", false));  // of one class alone, which any guess knows
  const auto first = one.objective.data().targets().eq(0).nonzero().squeeze(1);
  one.objective = one.objective.over(first);
  CHECK_FALSE(no_better_than_guess(one));
  const auto beside = no_better_than_guess(reversed(decided("cross-entropy", false)));
  CHECK(beside->accuracy < beside->most_frequent);
  const auto targets = decided("cross-entropy", false).objective.data().targets();
  CHECK(beside->most_frequent == doctest::Approx(at::bincount(targets).max().item<double>() / 100));
}

TEST_CASE("a model that is right is better than a guess, though it is too sure where it errs") {
  auto stage = decided("cross-entropy", false);
  for (auto& value : stage.theta) {
    value = value * 200;
  }
  const auto rows = at::arange(100);
  auto wrong = stage.objective.data().targets().clone();
  wrong.slice(0, 0, 100, 10).add_(1).remainder_(3);  // a tenth of the labels
  Dataset::Contents contents;
  contents.inputs = stage.objective.data().batch(0, 100).inputs;
  contents.ids = rows;
  contents.targets = wrong;
  contents.classes = {"a", "b", "c"};
  auto noisy = begin_stage({.name = "fit",
                            .model = create<Model>("linear"),
                            .loss = create<Loss>("cross-entropy"),
                            .data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU)},
                           {}, Random(1));
  noisy.theta = stage.theta;
  const auto losses = noisy.objective.example_losses(noisy.theta, noisy.parent, noisy.objective.data().batch(0, 100));
  CHECK(losses.mean().item<double>() > std::log(3));
  CHECK_FALSE(no_better_than_guess(noisy));
}

TEST_SUITE_END();
