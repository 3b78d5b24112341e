#include <set>

#include "models/made.h"
#include "support/near.h"
#include "training/problem.h"
#include "whence/core/described.h"
#include "whence/core/random.h"
#include "whence/stages/stage.h"
#include "whence/training/objective_digest.h"

using namespace whence;
using test::made_objective;

TEST_SUITE_BEGIN("training");

TEST_CASE("objectives share a digest only where they are the same function of their parameters") {
  const auto tanh = "mlp:widths=4,activation=tanh";
  const auto one = made_objective(tanh, "cross-entropy");
  const auto digest = objective_digest(one);
  CHECK(objective_digest(made_objective("mlp:activation=tanh,widths=4", "cross-entropy")) == digest);
  CHECK(objective_digest(one.with_batch_size(3)) == digest);
  CHECK(objective_digest(one.at(clone(one.trained().values()), {})) == digest);
  const auto& data = one.data();
  const auto remade = [&](const Dataset& other, const char* tuning) {
    return Objective(create<Model>(tanh), create<Loss>("cross-entropy"), create<Tuning>(tuning), other, 0.1,
                     one.trained(), {}, 10);
  };
  CHECK(objective_digest(remade(data, "full")) == digest);
  const std::set<std::string> others{
      digest,
      objective_digest(made_objective("mlp:widths=4,activation=relu", "cross-entropy")),
      objective_digest(made_objective(tanh, "squared-error")),
      objective_digest(made_objective(tanh, "cross-entropy", 0.2)),
      objective_digest(made_objective(tanh, "cross-entropy", 0.1, at::kFloat)),
      objective_digest(one.with_weights(at::arange(24, at::kDouble))),
      objective_digest(one.over(at::arange(23))),
      objective_digest(remade(data, "head")),
      objective_digest(remade(data.take(at::arange(23, -1, -1)), "full")),
  };
  CHECK(others.size() == 9);
}

TEST_CASE("how far from a minimum: the gradient exactly, an example's length within what 256 of them tell") {
  const auto few = made_objective("linear", "cross-entropy", 0);
  const auto many = few.over(at::arange(24, at::kLong).repeat({50}));
  const auto theta = many.trained().values();
  TensorList whole;
  many.value(theta, {}, &whole);
  const auto point = leaves(theta);
  double squares = 0;
  for (std::int64_t i = 0; i < 24; ++i) {
    const auto g = gradient(few.example_losses(point, {}, few.data().batch(i, i + 1)).sum(), point);
    squares += exact_dot(g, g) / 24;
  }
  const auto found = stationarity(many, theta, {});
  CHECK(found.gradient_norm == doctest::Approx(std::sqrt(exact_dot(whole, whole))).epsilon(1e-12));
  CHECK(found.data_gradient_norm == doctest::Approx(std::sqrt(squares)).epsilon(0.15));
  CHECK(found.relative_gradient_norm == found.gradient_norm / found.data_gradient_norm);
}

TEST_CASE("how far from a minimum, where one example of a thousand has nearly all of the gradients' square") {
  const auto few = made_objective("linear", "cross-entropy", 0);
  auto theta = few.trained().values();
  auto draws = Random(3);
  for (auto& value : theta) {
    value = 20 * draws.normal(value.sizes());
  }
  const auto losses = few.example_losses(theta, {}, few.data().batch(0, 24));
  const auto worst = losses.argmax().reshape({1}), best = losses.argmin().reshape({1});
  REQUIRE(losses.max().item<double>() > 1);
  REQUIRE(losses.min().item<double>() < 1e-6);
  const auto point = leaves(theta);
  const auto g = gradient(few.example_losses(point, {}, few.data().batch(worst)).sum(), point);
  const auto many = few.over(at::cat({best.repeat({999}), worst}));
  CHECK(stationarity(many, theta, {}).data_gradient_norm == doctest::Approx(std::sqrt(exact_dot(g, g) / 1000)));
}

TEST_CASE("how far from a minimum, where float64 would take long: lengths by one backward pass") {
  for (const std::int64_t count : {16, 300}) {
    CAPTURE(count);
    const std::int64_t times = (std::int64_t{1} << 25) / count / 1000 + 1, inputs = 1000 * times;  // too many in all
    Dataset::Contents contents;
    contents.inputs = Random(1).normal({count, 1000}).to(at::kFloat).repeat({1, times});
    contents.targets = at::arange(count).remainder(2);
    contents.classes = {"a", "b"};
    contents.ids = at::arange(count);
    auto stage = begin_stage({.name = "wide",
                              .model = create<Model>("linear"),
                              .loss = create<Loss>("cross-entropy"),
                              .data = Dataset(std::move(contents)).to(at::kFloat, at::kCPU)},
                             {}, Random(1));
    stage.theta[0] = (Random(2).normal({2, 1000}) / static_cast<double>(30 * times)).to(at::kFloat).repeat({1, times});
    REQUIRE(stage.theta[0].size(1) == inputs);
    const auto& data = stage.objective.data();
    const auto point = leaves(stage.theta);
    double squares = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto g = gradient(stage.objective.example_losses(point, {}, data.batch(i, i + 1)).sum(), point);
      squares += exact_dot(g, g) / static_cast<double>(count);
    }
    const auto found = stationarity(stage.objective, stage.theta, {});
    CHECK(found.data_gradient_norm == doctest::Approx(std::sqrt(squares)).epsilon(count > 256 ? 0.05 : 1e-4));
    CHECK(found.gradient_norm > 0);
  }
}

TEST_CASE("every model, loss and tuning that has options says what they are") {
  const auto check = [](const auto& list, auto make) {
    int checked = 0;
    for (const auto& method : list) {
      if (!method.options("").empty() && !test::needs_a_path(method)) {  // of those that do: tests/models
        CAPTURE(method.name);
        const auto made = make(method);
        CHECK(dynamic_cast<const Described*>(made.get()) != nullptr);
        ++checked;
      }
    }
    CHECK(checked > 0);
  };
  const auto make = [](const auto& method) { return method.make(""); };
  check(methods<Model>(), make);
  check(methods<Loss>(), make);
  check(methods<Tuning>(), make);
  CHECK(identity(*create<Model>("linear")) != identity(*create<Model>("linear:bias=false")));
  CHECK(identity(*create<Loss>("next-token")) != identity(*create<Loss>("next-token:mean")));
  CHECK(identity(*create<Loss>("next-token")) != identity(*create<Loss>("masked-token")));
  CHECK(identity(*create<Tuning>("full")) != identity(*create<Tuning>("full:proximity=0.5")));
}

TEST_SUITE_END();
