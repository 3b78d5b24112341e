#include "made.h"
#include "whence/icl/uses.h"

using namespace whence;
using test::Paper;
using Order = std::vector<std::int64_t>;

namespace {

at::Tensor row(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }

/// Sum over layers of the mean over queries of the regression's loss, on `chosen` alone.
double loss_with(const IclTask& pool, const Order& chosen, double lambda) {
  const auto kept = at::tensor(chosen, at::kLong);
  const auto y = test::target_rows(pool.labels, pool.classes).index_select(0, kept);
  double loss = 0;
  for (std::int64_t l = 0; l < pool.states.size(0); ++l) {
    const auto beta = test::coefficients(pool.states[l].index_select(0, kept), y, lambda);
    const auto error = pool.query_states[l].mm(beta) - test::target_rows(pool.query_labels, pool.classes);
    loss += error.square().sum(1).mean().item<double>() / 2;
  }
  return loss;
}

}  // namespace

TEST_SUITE_BEGIN("icl");

TEST_CASE("suspects, curation and removal by hand, equal scores in the prompt's order") {
  CHECK(suspects(row({0.5, 2, -1, 2, 3})) == Order{4, 1, 3, 0, 2});
  const auto test = at::stack({row({1, 5, 0, 2, 3}), row({1, -5, 4, 2, 0})});  // means 1 0 2 2 1.5
  CHECK(curate(test, 3) == Order{2, 3, 4});
  CHECK(curate(test, 1) == Order{2});
  CHECK(curate(test, 5) == Order{0, 1, 2, 3, 4});
  CHECK(removal_order(test, Removal::kMostHelpfulFirst) == Order{2, 3, 4, 0, 1});
  CHECK(removal_order(test, Removal::kLeastHelpfulFirst) == Order{1, 0, 4, 2, 3});
}

TEST_CASE("reordering: the two highest first and the rest rising, or falling, with a reason") {
  const auto self = row({0.3, 0.9, 0.1, 0.5, 0.3});
  const auto detail = reorder(self, parse_reordering("two-highest-first"));
  CHECK(detail.order == Order{1, 3, 2, 0, 4});
  CHECK(detail.reason ==
        "the highest self scores, 1 (0.9) and 3 (0.5), come first: the others explain them least; then rising self "
        "scores, from 2 (0.1) to 4 (0.3)");
  const auto falling = reorder(self, parse_reordering("descending"));
  CHECK(falling.order == Order{1, 3, 0, 4, 2});
  CHECK(falling.reason.find("1 (0.9) is explained least") != std::string::npos);
  CHECK(reorder(row({1}), Reordering::kTwoHighestFirst).order == Order{0});
  CHECK(reorder(row({1, 2}), Reordering::kTwoHighestFirst).order == Order{1, 0});
  CHECK(reorder(row({1, 2, 3}), Reordering::kTwoHighestFirst).order == Order{2, 1, 0});
  CHECK_THROWS_WITH_AS(parse_reordering("descendig"), doctest::Contains("did you mean \"descending\"?"),
                       InvalidArgument);
}

TEST_CASE("selection takes, at each step, what a refit says is best, and says the loss that a refit has") {
  for (const std::int64_t n : {9, 25}) {
    const auto pool = test::made_task({.demonstrations = n, .features = 12, .queries = 10, .layers = 2}, 3);
    const RidgeOptions options = Paper{.lambda = 0.8};
    const auto selection = select_demonstrations(pool, n, options);
    Order chosen;
    for (std::size_t k = 0; k < selection.chosen.size(); ++k) {
      auto best = std::numeric_limits<double>::infinity();
      for (std::int64_t z = 0; z < n; ++z) {
        if (std::find(chosen.begin(), chosen.end(), z) == chosen.end()) {
          auto with = chosen;
          with.push_back(z);
          best = std::min(best, loss_with(pool, with, 0.8));
        }
      }
      chosen.push_back(selection.chosen[k]);
      CHECK(selection.losses[k] == doctest::Approx(best).epsilon(1e-11));
      CHECK(selection.losses[k] == doctest::Approx(loss_with(pool, chosen, 0.8)).epsilon(1e-11));
    }
    auto sorted = chosen;
    std::sort(sorted.begin(), sorted.end());
    CHECK(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end());
  }
}

TEST_CASE("selection sees that a copy adds little, where the best test scores would take both") {
  auto pool = test::made_task({.demonstrations = 4, .features = 4, .classes = 2, .queries = 2});
  pool.states = at::stack({at::eye(4, at::kDouble)});
  pool.states[0][3] = pool.states[0][0];  // 3 is a copy of 0
  pool.labels = at::tensor({0, 1, 0, 0}, at::kLong);
  pool.query_labels = at::tensor({0, 1}, at::kLong);
  pool.query_states = at::stack({row({1, 0, 0, 0}), row({0, 0.9, 0, 0})}).unsqueeze(0);
  const RidgeOptions options = Paper{.lambda = 0.1, .regulariser = false};
  CHECK(select_demonstrations(pool, 2, options).chosen == Order{0, 1});
}

TEST_CASE("uses refuse scores that are not finite, labels that are absent, and counts out of range") {
  CHECK_THROWS_WITH_AS(suspects(row({1, NAN})),
                       "icl: self scores[1] = nan, expected a finite number (1 of 2 entries are not)", NumericalError);
  auto task = test::made_task({}, 4);
  task.query_labels[2] = -1;
  const auto test = ridge_scores(task, Paper{}).test;
  CHECK_THROWS_WITH_AS(curate(test, 2), doctest::Contains("icl: test scores[2, 0] = nan"), NumericalError);
  CHECK_THROWS_WITH_AS(removal_order(test, Removal::kMostHelpfulFirst), doctest::Contains("test scores[2, 0] = nan"),
                       NumericalError);
  CHECK_THROWS_WITH_AS(select_demonstrations(task, 2, Paper{}),
                       "icl: the label of query 2 is not known, but selection needs every query's", InvalidArgument);
  CHECK_THROWS_WITH_AS(suspects(at::zeros({2, 3})), doctest::Contains("expected [n] = [any]"), InvalidArgument);
  CHECK_THROWS_WITH_AS(curate(at::zeros({2, 3}), 4), "icl: demonstrations to keep = 4, expected 1 .. 3",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(curate(at::zeros({2, 3}), 0), "icl: demonstrations to keep = 0, expected 1 .. 3",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(select_demonstrations(test::made_task({}), 9, Paper{}),
                       "icl: demonstrations to select = 9, expected 1 .. 8", InvalidArgument);
}

TEST_SUITE_END();
