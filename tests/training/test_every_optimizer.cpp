// What every registered optimizer must do, whatever it is.
#include <torch/csrc/autograd/autograd.h>

#include <map>

#include "support/near.h"
#include "support/some.h"
#include "training/problem.h"

using namespace whence;
using namespace whence::test;

namespace {

struct Setting {
  std::string thorough;  ///< Reaches a minimum of a small convex problem.
  double error;          ///< How near, relative: minibatches leave noise.
  std::string brief;     ///< A dozen iterations and more than one epoch.
};

const std::map<std::string_view, Setting> kSettings = {
    {"lbfgs", {"lbfgs:tolerance=1e-12", 1e-11, "lbfgs:max-iterations=12,tolerance=0,history=3"}},
    {"adam",
     {"adam:learning-rate=0.05,epochs=400,batch-size=8,schedule=cosine,warm-up=10", 1e-3,
      "adam:learning-rate=0.1,max-iterations=12,batch-size=7,schedule=linear"}},
    {"adamw",
     {"adamw:learning-rate=0.05,epochs=400,batch-size=8,schedule=cosine,warm-up=10,decay=0", 1e-3,
      "adamw:learning-rate=0.1,max-iterations=12,batch-size=7,decay=0.1,clip=0.5,micro-batch=3"}},
    {"sgd",
     {"sgd:learning-rate=0.05,epochs=400,batch-size=8,schedule=linear,momentum=0.5,nesterov=true", 1e-3,
      "sgd:learning-rate=0.1,epochs=3,batch-size=7,warm-up=4,tolerance=1e-12"}},
};

/// Calls body(name, dtype) for every optimizer in float64 and in float32.
template <class Body>
void for_every_method(const Body& body) {
  for (const auto& method : methods<Optimizer>()) {
    for (const auto type : {at::kDouble, at::kFloat}) {
      CAPTURE(method.name);
      CAPTURE(c10::toString(type));
      body(std::string(method.name), type);
    }
  }
}

/// Likewise body(setting, dtype).
template <class Body>
void for_every_optimizer(const Body& body) {
  for_every_method([&](const std::string& name, at::ScalarType type) {
    const auto setting = kSettings.find(name);
    REQUIRE(setting != kSettings.end());
    body(setting->second, type);
  });
}

/// A start where the objective overflows.
TrainingState overflowing(const Objective& objective) {
  auto state = fresh_state(objective);
  state.theta[0].fill_(state.theta[0].scalar_type() == at::kDouble ? 1e200 : 1e30);
  return state;
}

}  // namespace

TEST_SUITE("training") {
  TEST_CASE("every optimizer reaches the ridge minimum, also of weighted examples") {
    for_every_optimizer([&](const Setting& setting, at::ScalarType type) {
      const auto plain = made_objective("linear", "squared-error", 0.1, type);
      auto weights = at::ones({plain.data().size()}, at::kDouble);
      weights[3] = 0;
      weights[7] = 5;
      for (const bool weighted : {false, true}) {
        if (!test::looks_at(weighted + 2 * (type == at::kFloat), 3)) {  // float64 plain, float32 weighted
          continue;
        }
        CAPTURE(weighted);
        const auto objective = weighted ? plain.with_weights(weights) : plain;
        auto state = fresh_state(objective);
        const auto summary = create<Optimizer>(setting.thorough)->minimise(objective, {}, state, Random(1), {});
        const auto minimum =
            ridge_minimum(made_objective("linear", "squared-error"), weighted ? weights : at::ones_like(weights));
        CHECK((state.theta[0].scalar_type() == type));
        CHECK(relative_error(state.theta, minimum) <
              (type == at::kDouble ? setting.error : std::max(setting.error, Tolerance::kFloat)));
        CHECK(summary.iterations == state.iteration);
        CHECK(summary.seconds >= 0);
        CHECK_FALSE(summary.message.empty());
        TensorList g;
        CHECK(summary.objective == objective.value(state.theta, {}, &g));
        CHECK(summary.gradient_norm == std::sqrt(exact_dot(g, g)));
      }
    });
  }

  TEST_CASE("the same bits twice; the caller's tensors are not written to") {
    for_every_optimizer([&](const Setting& setting, at::ScalarType type) {
      const auto objective = made_objective("mlp:widths=5", "cross-entropy", 0.1, type);
      const auto before = clone(objective.trained().values());
      TrainingState first{objective.trained().values(), 0, {}}, second = first;
      create<Optimizer>(setting.brief)->minimise(objective, {}, first, Random(1), {});
      create<Optimizer>(setting.brief)->minimise(objective, {}, second, Random(1), {});
      CHECK(same_bits(first.theta, second.theta));
      CHECK_FALSE(same_bits(first.theta, before));
      CHECK(same_bits(objective.trained().values(), before));
      const c10::NoGradGuard no_grad;
      TrainingState third{objective.trained().values(), 0, {}};
      create<Optimizer>(setting.brief)->minimise(objective, {}, third, Random(1), {});
      CHECK(same_bits(first.theta, third.theta));
    });
  }

  TEST_CASE("interrupted after any iteration, training goes on to the same bits") {
    for_every_optimizer([&](const Setting& setting, at::ScalarType type) {
      const auto objective = made_objective("mlp:widths=5", "cross-entropy", 0.1, type);
      auto whole = fresh_state(objective);
      const auto expected = create<Optimizer>(setting.brief)->minimise(objective, {}, whole, Random(1), {});
      REQUIRE(expected.iterations == 12);
      for (std::int64_t stop = 1; stop <= expected.iterations; ++stop) {
        CAPTURE(stop);
        auto state = fresh_state(objective);
        const auto interrupt = [&](const ProgressEvent& event) {
          if (event.done == stop) {
            throw Interrupted();
          }
        };
        CHECK_THROWS_AS(create<Optimizer>(setting.brief)->minimise(objective, {}, state, Random(1), interrupt),
                        Interrupted);
        CHECK(state.iteration == stop);
        const auto kept = state;
        const auto kept_theta = clone(state.theta);
        const auto summary = create<Optimizer>(setting.brief)->minimise(objective, {}, state, Random(1), {});
        CHECK(same_bits(state.theta, whole.theta));
        CHECK(summary.iterations == expected.iterations);
        CHECK(summary.objective == expected.objective);
        CHECK(same_bits(kept.theta, kept_theta));  // a state kept by the caller is a snapshot
      }
    });
  }

  TEST_CASE("progress is reported after every iteration") {
    for_every_optimizer([&](const Setting& setting, at::ScalarType type) {
      const auto objective = made_objective("linear", "squared-error", 0.1, type);
      auto state = fresh_state(objective);
      std::int64_t seen = 0;
      create<Optimizer>(setting.brief)->minimise(objective, {}, state, Random(1), [&](const ProgressEvent& event) {
        if (event.phase == "check") {  // of the end
          return;
        }
        CHECK(event.phase == "train");
        CHECK(event.done == ++seen);
        CHECK(event.total == 12);
        CHECK(event.detail.starts_with("loss "));
        CHECK(event.detail.find(", |gradient| ") != event.detail.npos);
      });
      CHECK(seen == state.iteration);
    });
  }

  TEST_CASE("too few iterations are an outcome: not converged") {
    for_every_optimizer([&](const Setting& setting, at::ScalarType type) {
      const auto objective = made_objective("mlp:widths=5", "cross-entropy", 0.1, type);
      auto state = fresh_state(objective);
      const auto summary = create<Optimizer>(setting.brief)->minimise(objective, {}, state, Random(1), {});
      CHECK_FALSE(summary.converged);
      CHECK(summary.gradient_norm > 0);
      CHECK(summary.iterations == 12);
    });
  }

  TEST_CASE("a start at the minimum needs no iteration") {
    const auto exact = made_objective("linear", "squared-error");
    const auto minimum = ridge_minimum(exact, at::ones({exact.data().size()}, at::kDouble));
    for_every_method([&](const std::string& method, at::ScalarType type) {
      const auto objective = made_objective("linear", "squared-error", 0.1, type);
      TrainingState state{objective.trained().with(minimum).to(type, at::kCPU).values(), 0, {}};
      const auto spec = method + (type == at::kDouble ? ":tolerance=1e-10" : ":tolerance=1e-5");
      const auto summary = create<Optimizer>(spec)->minimise(objective, {}, state, Random(1), {});
      CHECK(summary.converged);
      CHECK(summary.iterations == 0);
    });
  }

  TEST_CASE("an objective that is not finite is an error that names optimizer and iteration, and leaves the state") {
    for_every_method([&](const std::string& method, at::ScalarType type) {
      const auto objective = made_objective("linear", "squared-error", 0.1, type);
      auto state = overflowing(objective);
      const auto start = method + ": iteration 0: ";
      try {
        create<Optimizer>(method)->minimise(objective, {}, state, Random(1), {});
        FAIL("no error from " << start);
      } catch (const NumericalError& error) {
        CHECK(std::string(error.what()).starts_with(start));
        CHECK(std::string(error.what()).find("inf") != std::string::npos);
      }
      CHECK(state.iteration == 0);
    });
  }
}
