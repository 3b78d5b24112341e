// Objectives of tasks, which contain the steps of an inner loop, against the same written out and against differences.
#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "support/text_points.h"
#include "training/primed.h"
#include "whence/core/error.h"
#include "whence/curvature/curvature.h"
#include "whence/models/ops.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;

namespace {

Stage primed(const std::string& priming) {
  return begin_stage(test::primed_parts("primed", priming, Random(3)), {}, Random(5));
}

/// Away from any special point.
TensorList moved(const TensorList& theta) {
  auto draws = Random(8);
  TensorList out;
  for (const auto& value : theta) {
    out.push_back(value + 0.3 * draws.normal(value.sizes()));
  }
  return out;
}

/// The mean loss of some rows of the data with a body and light parameters, without code of Objective.
at::Tensor mean_loss(const Stage& stage, const TensorList& theta, const TensorList& light, const at::Tensor& rows) {
  const auto& objective = stage.objective;
  const auto& inner = *objective.inner();
  const auto batch = objective.data().batch(rows);
  const auto model = inner.tuning().merge(objective.trained().with(theta), inner.start().with(light));
  return objective.loss().per_example(objective.model().output(model, batch), batch).mean();
}

/// The two terms of formulas.md 6 for one inner step of length `rate`, means over the tasks: [P] each.
std::pair<at::Tensor, at::Tensor> outer_gradient(const Stage& stage, const TensorList& at, double rate) {
  const auto& inner = *stage.objective.inner();
  auto direct = at::zeros({count_entries(at)}, at::kDouble), through = at::zeros_like(direct);
  for (const auto& task : inner.tasks()) {
    const auto theta = leaves(at), light = leaves(inner.start().values());
    const auto in_light = gradient(mean_loss(stage, theta, light, task.support), light, true);
    TensorList adapted;
    for (std::size_t i = 0; i < light.size(); ++i) {
      adapted.push_back((light[i] - rate * in_light[i]).detach());
    }
    adapted = leaves(adapted);
    const auto query = mean_loss(stage, theta, adapted, task.query);
    const auto query_in_light = gradient(query, adapted, false, true);
    direct.add_(flatten(gradient(query, theta)));
    through.add_(flatten(gradient(in_light, theta, query_in_light)), -rate);
  }
  const auto count = static_cast<double>(inner.tasks().size());
  return {direct / count, through / count};
}

at::Tensor gradient_at(const Objective& objective, const TensorList& theta, const TensorList& parent = {}) {
  TensorList g;
  objective.value(theta, parent, &g);
  return flatten(g);
}

/// d gradient . direction, by central differences.
at::Tensor gradient_difference(const Objective& objective, const TensorList& theta, const at::Tensor& direction) {
  constexpr double kStep = 1e-5;
  const auto centre = flatten(theta);
  const auto side = [&](double h) { return gradient_at(objective, unflatten(centre + h * direction, theta)); };
  return (side(kStep) - side(-kStep)) / (2 * kStep);
}

}  // namespace

TEST_SUITE_BEGIN("training");

TEST_CASE("with one inner step the outer gradient is the query's and what goes through the step, or the first alone") {
  for (const char* inner : {"head", "lora:rank=1;alpha=2"}) {
    CAPTURE(inner);
    const auto spec = std::string("maml:inner-rate=0.3,inner=") + inner;
    const auto stage = primed(spec);
    const auto theta = moved(stage.theta);
    const auto [direct, through] = outer_gradient(stage, theta, 0.3);
    CHECK(through.norm().item<double>() > 1e-3 * direct.norm().item<double>());
    const auto decay = 0.05 * flatten(theta);
    CHECK(relative_error(gradient_at(stage.objective, theta), direct + through + decay) < Tolerance::kSameAlgebra);
    CHECK(relative_error(gradient_at(primed(spec + ",order=first").objective, theta), direct + decay) <
          Tolerance::kSameAlgebra);
  }
}

TEST_CASE("gradients through several inner steps are those of differences, and so are second derivatives") {
  for (const char* inner : {"head", "lora:rank=1;alpha=2", "hut:rank=1", "adapter:width=2"}) {
    CAPTURE(inner);
    const auto stage = primed(std::string("maml:inner-steps=3,inner-rate=0.2,inner=") + inner);
    const auto theta = moved(stage.theta);
    const auto centre = flatten(theta);
    const auto n = centre.numel();
    const auto g = gradient_at(stage.objective, theta);
    auto differences = at::empty_like(g);
    const auto unit = at::eye(n, at::kDouble);
    constexpr double kStep = 1e-5;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto value = [&](double h) {
        return stage.objective.value(unflatten(centre + h * unit[i], theta), {}, nullptr);
      };
      differences[i] = (value(kStep) - value(-kStep)) / (2 * kStep);
    }
    CHECK(relative_error(g, differences) < Tolerance::kDifferences);
    for (const char* bytes : {"0", "1e9"}) {  // graphs made anew for each product, and kept
      const auto hessian = create<Curvature>(std::string("hessian:graph-bytes=") + bytes)
                               ->operator_at({stage.objective, theta, {}})
                               ->apply(unit);
      CHECK(relative_error(hessian, hessian.t()) < Tolerance::kDense);
      for (const std::int64_t i : {std::int64_t{0}, n / 2, n - 1}) {
        CHECK(relative_error(hessian[i], gradient_difference(stage.objective, theta, unit[i])) <
              Tolerance::kDifferences);
      }
    }
  }
}

TEST_CASE("the third derivatives that a transformer's norms take in inner steps are right") {
  for (const auto& tiny : test::kTinyTransformers) {
    CAPTURE(tiny.name);
    const test::Scratch folder;
    folder.put("config.json", tiny.config);
    const std::shared_ptr<const Loss> loss = create<Loss>(tiny.loss);
    const auto stage = begin_stage({.name = "primed",
                                    .model = create<Model>("transformer:directory=" + folder.folder().string()),
                                    .loss = loss,
                                    .data = test::tiny_texts(loss->wants() == TargetKind::kMaskedTokens),
                                    .weight_decay = test::kTextDecay,
                                    .priming = create<Priming>("maml:inner=lora:rank=1;alpha=1,inner-steps=2"),
                                    .tasks = {"a", "a", "a", "a"}},
                                   {}, Random(2));
    const auto theta = moved(stage.theta);
    auto direction = Random(4).normal({count_entries(theta)});
    direction = direction / direction.norm();
    const auto product =
        create<Curvature>("hessian")->operator_at({stage.objective, theta, {}})->apply(direction.unsqueeze(0))[0];
    CHECK(relative_error(product, gradient_difference(stage.objective, theta, direction)) < Tolerance::kDifferences);
  }
}

TEST_CASE("a task's examples are split by seed, and batches hold whole tasks") {
  const auto names = test::toy_tasks(12);
  const auto tasks = split_tasks(names, 0.5, Random(1));
  REQUIRE(tasks.size() == 3);
  CHECK(tasks[0].name == "a");
  CHECK(tasks[2].name == "c");
  std::vector<bool> seen(12, false);
  for (const auto& task : tasks) {
    for (const auto& rows : {task.support, task.query}) {
      CHECK(rows.size(0) >= 1);
      for (std::int64_t i = 0; i < rows.size(0); ++i) {
        const auto row = static_cast<std::size_t>(rows[i].item<std::int64_t>());
        CHECK(names[row] == task.name);
        CHECK(!seen[row]);
        seen[row] = true;
      }
    }
  }
  CHECK(std::find(seen.begin(), seen.end(), false) == seen.end());
  CHECK(at::equal(split_tasks(names, 0.5, Random(1))[0].support, tasks[0].support));
  CHECK(split_tasks(names, 0.9, Random(1))[0].query.size(0) == 1);
  CHECK(split_tasks(names, 0.01, Random(1))[0].support.size(0) == 1);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "priming: task \"alone\" has one example, expected two or more",
                      split_tasks({"pair", "pair", "alone"}, 0.5, Random(1)));

  const auto objective = primed("maml:inner=head").objective;
  CHECK(objective.terms() == 3);
  std::int64_t tasks_seen = 0;
  objective.for_each_batch([&](const Batch& batch) { tasks_seen += objective.terms_in(batch).size(0); });
  CHECK(tasks_seen == 3);
  const auto again = at::tensor({2, 0, 2}, at::kLong);
  CHECK(at::equal(objective.terms_in(objective.terms_batch(again)), again));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "of whole tasks, and a batch holds a part of one",
                      objective.terms_in(objective.data().batch(0, 5)));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "its examples have none apart",
                      objective.example_losses(objective.trained().values(), {}, objective.data().batch(0, 1)));
}

TEST_CASE("the value is the mean over tasks; some tasks are an objective of their own; weights act on both halves") {
  const auto stage = primed("maml:inner=head,inner-steps=2,inner-rate=0.2");
  const auto theta = moved(stage.theta);
  const auto& objective = stage.objective;
  const auto penalty = objective.penalty(theta, {}).item<double>();
  double mean = 0;
  for (std::int64_t t = 0; t < 3; ++t) {
    mean += (objective.over(at::tensor({t}, at::kLong)).value(theta, {}, nullptr) - penalty) / 3;
  }
  CHECK(objective.value(theta, {}, nullptr) - penalty == doctest::Approx(mean).epsilon(1e-12));
  CHECK(objective.with_weights(at::ones({12}, at::kDouble)).value(theta, {}, nullptr) ==
        doctest::Approx(mean + penalty).epsilon(1e-12));
  const auto& task = objective.inner()->tasks()[0];
  const auto some = at::arange(24, at::kDouble).view({2, 12});
  CHECK(objective.inner()->of_tasks(some).sizes() == at::IntArrayRef({2, 3}));
  CHECK(objective.inner()->of_tasks(some)[1][0].item<double>() ==
        some[1].index_select(0, task.query).sum().item<double>());
  for (const auto& rows : {task.support, task.query}) {
    auto weights = at::ones({12}, at::kDouble);
    weights[rows[0].item<std::int64_t>()] = 2;
    CHECK(std::abs(objective.with_weights(weights).value(theta, {}, nullptr) - mean - penalty) > 1e-6);
  }
}

TEST_CASE("minibatches are of tasks: a step with all of them follows the gradient") {
  const auto stage = primed("maml:inner=head");
  TrainingState state{stage.theta, 0, {}};
  create<Optimizer>("sgd:epochs=1,batch-size=9,momentum=0,learning-rate=0.1,schedule=constant")
      ->minimise(stage.objective, {}, state, Random(1), {});
  CHECK(state.iteration == 1);
  const auto g = gradient_at(stage.objective, stage.theta);
  CHECK(relative_error(flatten(state.theta), flatten(stage.theta) - 0.1 * g) < Tolerance::kSameAlgebra);
  const auto found = stationarity(stage.objective, stage.theta, {});
  CHECK(found.gradient_norm == doctest::Approx(g.norm().item<double>()));
  CHECK(found.data_gradient_norm > 0);
}

TEST_CASE("a primed stage hands on its body, and what cannot be primed is refused") {
  const auto stage = primed("maml:inner=lora:rank=1");
  CHECK(stage.objective.trained().names() == std::vector<std::string>{"body.0.weight", "body.0.bias"});
  CHECK(stage.handed_on().names() == stage.objective.trained().names());
  CHECK(relative_error(begin_stage(test::primed_parts("primed", "maml:inner=lora:rank=1", Random(3)), {}, Random(5))
                           .objective.inner()
                           ->start()
                           .values(),
                       stage.objective.inner()->start().values()) == 0);
  const auto refused = [&](StageParts parts, const Chain& before, const char* why) {
    CAPTURE(why);
    CHECK_MESSAGE_HOLDS(InvalidArgument, why, begin_stage(std::move(parts), before, Random(1)));
  };
  refused(test::primed_parts("p", "maml:inner=full", Random(3)), {},
          "stage p: priming: inner = full trains body.0.weight, which is the outer loop's");
  refused(test::primed_parts("p", "maml:inner=head", Random(3), "head"), {stage},
          "stage p: a primed stage trains the body, all of it: expected tuning full");
  auto unnamed = test::primed_parts("p", "maml:inner=head", Random(3));
  unnamed.tasks.pop_back();
  refused(unnamed, {}, "stage p: priming: the tasks of 11 examples are named, expected those of all 12");
  CHECK_MESSAGE_HOLDS(InvalidArgument, "maml: option order = second, expected exact|first",
                      create<Priming>("maml:order=second"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "maml: option support = 1, expected above 0 and below 1",
                      create<Priming>("maml:support=1"));
}

TEST_SUITE_END();
