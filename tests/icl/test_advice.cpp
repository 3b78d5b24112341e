// Wrong labels among right ones, on states that tell the classes apart and on states that do not.
#include "made.h"
#include "whence/icl/advice.h"

using namespace whence;
using test::made_task;

namespace {

/// Two classes, one on each side of every feature, with these labels turned.
IclTask sided_task(const std::vector<std::int64_t>& wrong, double noise = 0.5) {
  auto task = made_task({.demonstrations = 20, .features = 30, .classes = 2, .queries = 6, .layers = 2});
  task.labels = at::arange(20, at::kLong).remainder(2);
  task.query_labels = at::arange(6, at::kLong).remainder(2);
  const auto side = [](const at::Tensor& labels) { return (2 * labels - 1).to(at::kDouble).view({1, -1, 1}); };
  task.states = noise * task.states + side(task.labels);
  task.query_states = noise * task.query_states + side(task.query_labels);
  for (const auto i : wrong) {
    task.labels[i] = 1 - task.labels[i];
  }
  return task;
}

std::vector<std::int64_t> dropped(const Advice& advice) {
  std::vector<std::int64_t> out;
  for (const auto& drop : advice.drop) {
    out.push_back(drop.demonstration);
  }
  return out;
}

Advice advise(const IclTask& task, const at::Tensor& helpful = {}) {
  const auto options = suspecting_ridge_options();
  return advise_by_labels(task, ridge_scores(task, options), options, helpful);
}

}  // namespace

TEST_SUITE_BEGIN("icl");

TEST_CASE("wrong labels are dropped, the highest self score first, with the class that the others say") {
  const auto task = sided_task({3, 8});
  const auto advice = advise(task);
  CHECK_FALSE(advice.thin);
  CHECK(advice.chance == doctest::Approx(1 / 200.));
  const auto self = ridge_scores(task, suspecting_ridge_options()).self;
  auto wanted = std::vector<std::int64_t>{3, 8};
  if (self[8].item<double>() > self[3].item<double>()) {
    std::swap(wanted[0], wanted[1]);
  }
  REQUIRE(dropped(advice) == wanted);
  for (const auto& drop : advice.drop) {
    CHECK(drop.instead == 1 - task.labels[drop.demonstration].item<std::int64_t>());
  }
  CHECK(advice.reason.find("the others foretell 18 of 20 labels") == 0);
  // what helps stays, whatever its label
  auto helpful = -at::ones({20}, at::kDouble);
  helpful[8] = 1;
  CHECK(dropped(advise(task, helpful)) == std::vector<std::int64_t>{3});
}

TEST_CASE("right labels are all kept, and states that say nothing are called thin") {
  const auto right = advise(sided_task({}));
  CHECK_FALSE(right.thin);
  CHECK(right.drop.empty());
  int thin = 0, told = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto advice = advise(made_task({.demonstrations = 20, .features = 30, .classes = 2}, seed));
    thin += advice.thin ? 1 : 0;
    told += advice.drop.empty() ? 0 : 1;
    CHECK((!advice.thin || advice.drop.empty()));
  }
  CHECK(thin >= 16);  // chance passes 1 in 10 times
  CHECK(told <= 4);
}

TEST_CASE("the same task gets the same advice, and its size may be anything") {
  const auto task = sided_task({0}, 1.5);
  CHECK(advise(task).chance == advise(task).chance);
  auto one = made_task({.demonstrations = 1, .classes = 2});
  CHECK(advise(one).thin);
  CHECK(advise(one).reason == "one demonstration has no others to judge it by");
  auto same = made_task({.demonstrations = 5, .classes = 1});
  CHECK(advise(same).thin);
  CHECK(advise(same).drop.empty());
  CHECK(advise(made_task({.demonstrations = 2, .classes = 2})).thin);
  CHECK_NOTHROW(advise(made_task({.demonstrations = 60, .features = 8, .classes = 5, .layers = 3})));
}

TEST_CASE("surprisal: what stands out by 5 nats and by the spread") {
  const auto values = [](const std::vector<double>& list) { return at::tensor(list, at::kDouble); };
  const auto two = advise_by_surprisal(values({0.1, 9, 0.3, 0.2, 12, 0.4, 0.1}));
  CHECK(dropped(two) == std::vector<std::int64_t>{4, 1});
  CHECK_FALSE(two.thin);
  CHECK(two.reason == "an output costs the model 0.3 nats in the median, and from 5.3 stands out");
  CHECK(dropped(advise_by_surprisal(values({0.1, 5.2, 0.3, 0.2, 0.4}))).empty());     // 4.9 above
  CHECK(dropped(advise_by_surprisal(values({10, 14, 18, 22, 26, 30, 34}))).empty());  // as they always spread
  const auto few = advise_by_surprisal(values({0.1, 20, 0.1, 0.1}));
  CHECK(few.thin);
  CHECK(few.drop.empty());
  CHECK_THROWS_AS(advise_by_surprisal(values({1, NAN, 1, 1, 1})), NumericalError);
}

TEST_SUITE_END();
