#include "support/near.h"
#include "training/problem.h"
#include "whence/training/detail/minibatch.h"

using namespace whence;
using namespace whence::test;

TEST_SUITE("training") {
  TEST_CASE("schedules") {
    whence::detail::MinibatchOptions options{.learning_rate = 2};
    options.warm_up = 4;
    const auto rate = [&](const char* schedule, std::int64_t iteration) {
      options.schedule = schedule;
      return whence::detail::scheduled_rate(options, iteration, 24);
    };
    for (const auto* schedule : {"constant", "linear", "cosine"}) {
      CHECK(rate(schedule, 0) == 0.5);
      CHECK(rate(schedule, 3) == 2);
      CHECK(rate(schedule, 4) == 2);
    }
    CHECK(rate("constant", 23) == 2);
    CHECK(rate("linear", 14) == 1);
    CHECK(rate("linear", 23) == doctest::Approx(0.1));
    CHECK(rate("cosine", 14) == doctest::Approx(1));
    CHECK(rate("cosine", 9) == doctest::Approx(1 + std::sqrt(0.5)));
    options.max_iterations = 24;
    for (const auto* schedule : {"constant", "linear", "cosine"}) {
      double sum = 0;
      for (std::int64_t i = 0; i < 24; ++i) {
        sum += rate(schedule, i);
      }
      CHECK(whence::detail::planned_time(options, 100) == doctest::Approx(sum));
    }
    CHECK(whence::detail::progress_detail(0.21312, 3.14e-5) == "loss 0.2131, |gradient| 3.1e-05");
  }

  TEST_CASE("over an epoch every example is seen once, in an order of its own") {
    const auto objective = made_objective("linear", "squared-error");
    std::vector<TensorList> steps;
    const auto record = [&](TrainingState&, const TensorList& g, double) { steps.push_back(g); };
    whence::detail::MinibatchOptions options{.learning_rate = 1};
    options.epochs = 2;
    options.batch_size = 5;  // 24 examples: 5 minibatches, the last of 4
    auto state = fresh_state(objective);
    whence::detail::MinibatchSteps("test", options, objective, {}, Random(3), record, {}).minimise(state, {});
    REQUIRE(steps.size() == 10);
    // At fixed theta the minibatches' gradients, each times its share of the data, add to the whole gradient.
    TensorList whole;
    objective.value(state.theta, {}, &whole);
    for (const std::size_t epoch : {0U, 1U}) {
      TensorList sum = zeros_like(whole);
      for (std::size_t i = 0; i < 5; ++i) {
        axpy((i < 4 ? 5.0 : 4.0) / 24, steps[5 * epoch + i], sum);
      }
      CHECK(relative_error(sum, whole) < Tolerance::kSameAlgebra);
    }
    CHECK(relative_error(steps[0], steps[5]) > 1e-3);
  }

  TEST_CASE("a tolerance stops at the first epoch's end that meets it; without one, nothing is converged") {
    const auto objective = made_objective("linear", "squared-error");
    for (const std::string spec : {"adam:learning-rate=0.05", "sgd:learning-rate=0.2"}) {
      CAPTURE(spec);
      auto state = fresh_state(objective);
      const auto summary = create<Optimizer>(spec + ",schedule=constant,epochs=5000,batch-size=24,tolerance=1e-8")
                               ->minimise(objective, {}, state, Random(1), {});
      CHECK(summary.converged);
      CHECK(summary.gradient_norm <= 1e-8);
      CHECK(summary.iterations < 5000);
      CHECK(summary.message.find("met the tolerance 1.00e-08") != std::string::npos);
      state = fresh_state(objective);
      CHECK_FALSE(create<Optimizer>(spec + ",epochs=2")->minimise(objective, {}, state, Random(1), {}).converged);
    }
  }

  TEST_CASE("a learning rate that is too large ends in an error at a finite state") {
    const auto objective = made_objective("linear", "squared-error");
    auto state = fresh_state(objective);
    CHECK_THROWS_WITH_AS(
        create<Optimizer>("sgd:learning-rate=1e6,epochs=1000")->minimise(objective, {}, state, Random(1), {}),
        doctest::Contains("a smaller learning-rate may help"), NumericalError);
    CHECK(state.iteration > 0);
    CHECK_NOTHROW(check_finite(state.theta, "theta"));
  }

  TEST_CASE("adam's and sgd's first steps by hand") {
    const auto objective = made_objective("linear", "squared-error");
    TensorList g;
    objective.value(objective.trained().values(), {}, &g);
    const auto step_of = [&](const std::string& spec, std::int64_t steps) {
      auto state = fresh_state(objective);
      create<Optimizer>(spec + ",schedule=constant,batch-size=24,max-iterations=" + std::to_string(steps))
          ->minimise(objective, {}, state, Random(1), {});
      return state.theta;
    };
    TensorList sign, plain;
    for (const auto& t : g) {
      sign.push_back(-0.01 * t.sign());
      plain.push_back(-0.01 * t);
    }
    CHECK(relative_error(step_of("adam:learning-rate=0.01,epsilon=1e-30", 1), sign) < Tolerance::kSameAlgebra);
    CHECK(relative_error(step_of("sgd:learning-rate=0.01", 1), plain) < Tolerance::kSameAlgebra);
    TensorList second;
    objective.value(plain, {}, &second);
    auto heavy_ball = clone(plain), nesterov = clone(plain);
    axpy(-0.01, second, heavy_ball);  // velocity 0.5 g + g2
    axpy(-0.01 * 0.5, g, heavy_ball);
    CHECK(relative_error(step_of("sgd:learning-rate=0.01,momentum=0.5", 2), heavy_ball) < Tolerance::kSameAlgebra);
    nesterov = zeros_like(g);
    axpy(-0.01 * 1.5, g, nesterov);  // first step g + 0.5 g
    objective.value(nesterov, {}, &second);
    axpy(-0.01 * 1.5, second, nesterov);  // g2 + 0.5 (0.5 g + g2)
    axpy(-0.01 * 0.25, g, nesterov);
    CHECK(relative_error(step_of("sgd:learning-rate=0.01,momentum=0.5,nesterov=true", 2), nesterov) <
          Tolerance::kSameAlgebra);
  }

  TEST_CASE("the inverse of training time: of the learning rates' sum, over what steps divide the gradient by") {
    const auto objective = made_objective("linear", "squared-error");
    TensorList g;
    objective.value(objective.trained().values(), {}, &g);
    const auto inverse_time = [&](const std::string& spec) {
      auto state = fresh_state(objective);
      const auto optimizer = create<Optimizer>(spec + ",schedule=constant,batch-size=24");
      CHECK(optimizer->inverse_time(state) == 0);
      optimizer->minimise(objective, {}, state, Random(1), {});
      return optimizer->inverse_time(state);
    };
    CHECK(inverse_time("sgd:learning-rate=0.01,momentum=0.5,max-iterations=2") == doctest::Approx(1 / (4 * 0.01)));
    const auto all = flatten(g);
    const double root = std::sqrt(all.square().mean().item<double>());
    CHECK(inverse_time("adam:learning-rate=0.01,epsilon=1e-30,max-iterations=1") == doctest::Approx(root / 0.01));
  }

  TEST_CASE("options are named when they are out of bounds") {
    CHECK_THROWS_WITH_AS(create<Optimizer>("adam:beta1=1"), "adam: option beta1 = 1, expected in [0, 1)",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(create<Optimizer>("sgd:schedule=step"),
                         "sgd: option schedule = step, expected constant|linear|cosine", InvalidArgument);
    CHECK_THROWS_WITH_AS(create<Optimizer>("adam:learning-rat=1"), doctest::Contains("did you mean \"learning-rate\"?"),
                         InvalidArgument);
  }
}
