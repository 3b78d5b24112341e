// Training that a validation measures, and ends.
#include "support/near.h"
#include "training/problem.h"
#include "whence/core/error.h"
#include "whence/training/validation.h"

using namespace whence;
using namespace whence::test;

namespace {

/// The training's examples with targets that theta gives them, so that there alone the loss is 0.
Dataset given_by(const Objective& objective, const TensorList& theta) {
  const auto batch = objective.data().batch(0, objective.data().size());
  Dataset::Contents contents;
  contents.inputs = batch.inputs;
  contents.ids = at::arange(batch.size(), at::kLong);
  contents.targets = at::addmm(theta[1], batch.inputs, theta[0].t());
  return Dataset(std::move(contents)).to(batch.inputs.scalar_type(), at::kCPU);
}

/// Theta after some steps of an optimizer.
TensorList after(const Objective& objective, const std::string& spec, std::int64_t steps) {
  struct Enough {};
  auto state = fresh_state(objective);
  try {
    create<Optimizer>(spec)->minimise(objective, {}, state, Random(1), [&](const ProgressEvent& event) {
      if (event.phase == "train" && event.done == steps) {
        throw Enough();
      }
    });
  } catch (const Enough&) {
  }
  return state.theta;
}

const std::vector<std::string> kOptimizers = {
    "sgd:learning-rate=0.05,batch-size=7,epochs=10,momentum=0.3", "adam:learning-rate=0.05,batch-size=7,epochs=10",
    "adamw:learning-rate=0.05,batch-size=7,epochs=10,decay=0.1", "lbfgs:max-iterations=12"};

}  // namespace

TEST_SUITE("training") {
  TEST_CASE("where the validation's loss rises training stops, and ends with the parameters before that") {
    for (const auto& spec : kOptimizers) {
      CAPTURE(spec);
      const std::int64_t turn = spec.starts_with("lbfgs") ? 2 : 6;
      const auto objective = made_objective("linear", "squared-error");
      const auto there = after(objective, spec, turn);
      const auto data = given_by(objective, there);
      Validation validation{.data = [&] { return data; }, .patience = 3, .every = 1};
      auto state = fresh_state(objective);
      const auto summary =
          stopping_early(create<Optimizer>(spec), validation)->minimise(objective, {}, state, Random(1), {});
      CHECK(summary.kept == turn);
      CHECK(summary.iterations == turn + 3);
      if (spec.starts_with("sgd")) {  // whose time goes with its steps' rates
        const auto& kept = summary.validation[static_cast<std::size_t>(turn) - 1];
        CHECK(kept.time > 0);
        CHECK(kept.time < state.time);
      }
      CHECK(summary.stopped_early);
      CHECK_FALSE(summary.converged);
      CHECK(same_bits(state.theta, there));
      CHECK(summary.message.find("stopped early") != std::string::npos);
      TensorList g;
      CHECK(summary.objective == objective.value(there, {}, &g));
      CHECK(summary.gradient_norm == std::sqrt(exact_dot(g, g)));
      // what was measured, by hand
      REQUIRE(summary.validation.size() == static_cast<std::size_t>(turn) + 3);
      const auto batch = data.batch(0, 24);
      for (const auto& measured : summary.validation) {
        const auto theta = after(objective, spec, measured.iteration);
        const auto off = at::addmm(theta[1], batch.inputs, theta[0].t()) - batch.targets;
        CHECK(measured.loss == doctest::Approx(off.square().sum().item<double>() / 48).epsilon(1e-12));
        CHECK(std::isnan(measured.accuracy));
      }
      // without patience it goes on to the end and keeps the same
      validation.patience = 0;
      auto to_the_end = fresh_state(objective);
      const auto longer =
          stopping_early(create<Optimizer>(spec), validation)->minimise(objective, {}, to_the_end, Random(1), {});
      CHECK_FALSE(longer.stopped_early);
      CHECK(longer.iterations > summary.iterations);
      CHECK(longer.kept == turn);
      CHECK(same_bits(to_the_end.theta, there));
    }
  }

  TEST_CASE("interrupted anywhere, also while it measures, validated training goes on to the same bits") {
    for (const auto& spec : kOptimizers) {
      CAPTURE(spec);
      const auto objective = made_objective("linear", "squared-error").with_batch_size(5);
      const auto data = given_by(objective, after(objective, spec, 4));
      const Validation validation{.data = [&] { return data; }, .patience = 2, .every = 2};
      const auto optimizer = stopping_early(create<Optimizer>(spec), validation);
      auto whole = fresh_state(objective);
      std::int64_t events = 0;
      const auto expected =
          optimizer->minimise(objective, {}, whole, Random(1), [&](const ProgressEvent&) { ++events; });
      REQUIRE(events > 20);
      for (std::int64_t stop = 1; stop <= events; ++stop) {
        CAPTURE(stop);
        auto state = fresh_state(objective);
        std::int64_t seen = 0;
        CHECK_THROWS_AS(optimizer->minimise(objective, {}, state, Random(1),
                                            [&](const ProgressEvent&) {
                                              if (++seen == stop) {
                                                throw Interrupted();
                                              }
                                            }),
                        Interrupted);
        const auto summary = optimizer->minimise(objective, {}, state, Random(1), {});
        CHECK(same_bits(state.theta, whole.theta));
        CHECK(summary.kept == expected.kept);
        CHECK(summary.iterations == expected.iterations);
        CHECK(summary.validation.size() == expected.validation.size());
        CHECK(summary.validation.back().loss == expected.validation.back().loss);
      }
      // at its end it stays there
      const auto again = optimizer->minimise(objective, {}, whole, Random(1), {});
      CHECK(again.iterations == expected.iterations);
      CHECK(again.kept == expected.kept);
      CHECK(again.objective == expected.objective);
    }
  }

  TEST_CASE("without a number of iterations it measures after each epoch, and at the end") {
    const auto objective = made_objective("linear", "squared-error");
    const Validation validation{.data = [&] { return objective.data(); }, .patience = 0};
    auto state = fresh_state(objective);
    const auto summary = stopping_early(create<Optimizer>("adam:batch-size=7,max-iterations=10"), validation)
                             ->minimise(objective, {}, state, Random(1), {});
    std::vector<std::int64_t> when;
    for (const auto& measured : summary.validation) {
      when.push_back(measured.iteration);
    }
    CHECK(when == std::vector<std::int64_t>{4, 8, 10});
    CHECK_THROWS_WITH_AS(stopping_early(create<Optimizer>("adam"), validation)->planned_iterations(24),
                         doctest::Contains("not known before"), InvalidArgument);
  }

  TEST_CASE("an accuracy is the share of examples whose class has the highest output; of equal ones the loss counts") {
    const auto objective = made_objective("linear", "cross-entropy");
    const auto theta = objective.trained().values();
    const auto batch = objective.data().batch(0, 24);
    const auto output = at::addmm(theta[1], batch.inputs, theta[0].t());
    const auto found = validate({.by_accuracy = true}, objective.data(), objective, theta, {}, 7, {});
    CHECK(found.iteration == 7);
    CHECK(found.accuracy ==
          doctest::Approx(output.argmax(1).eq(batch.targets).to(at::kDouble).mean().item<double>()).epsilon(1e-12));
    const auto chosen = output.log_softmax(1).gather(1, batch.targets.unsqueeze(1));
    CHECK(found.loss == doctest::Approx(-chosen.mean().item<double>()).epsilon(1e-12));
    const std::vector<ValidationResult> results{{1, 0.5, 0.6}, {2, 0.4, 0.5}, {3, 0.45, 0.6}, {4, 0.45, 0.6}};
    CHECK(best_of(results, /*by_accuracy=*/false) == 1);
    CHECK(best_of(results, /*by_accuracy=*/true) == 2);
  }

  TEST_CASE("what cannot be measured is refused in a line") {
    const auto objective = made_objective("linear", "squared-error");
    const auto theta = objective.trained().values();
    CHECK_THROWS_WITH_AS(validate({.draws = 3}, objective.data(), objective, theta, {}, 1, {}),
                         "validation with 3 draws: its tuning draws no models: expected prefix-simplex",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(validate({.by_accuracy = true}, objective.data(), objective, theta, {}, 1, {}),
                         doctest::Contains("expected a validation by loss"), InvalidArgument);
    // by training before its first iteration, and what reads the examples is called by training alone
    int reads = 0;
    const auto optimizer = stopping_early(create<Optimizer>("adam"), {.data =
                                                                          [&] {
                                                                            ++reads;
                                                                            return objective.data();
                                                                          },
                                                                      .by_accuracy = true});
    CHECK(reads == 0);
    auto state = fresh_state(objective);
    CHECK_THROWS_WITH_AS(optimizer->minimise(objective, {}, state, Random(1), {}),
                         doctest::Contains("expected a validation by loss"), InvalidArgument);
    CHECK(reads == 1);
    CHECK(state.iteration == 0);
    auto far = clone(theta);
    far[0].fill_(1e200);
    CHECK_THROWS_WITH_AS(validate({}, objective.data(), objective, far, {}, 5, {}),
                         "validation after iteration 5: the loss is inf over 24 examples", NumericalError);
  }
}
