// The contract of every kernel, and what is particular to each.
#include "made.h"
#include "whence/icl/state_kernel.h"

using namespace whence;
using test::made_task;
using test::Paper;
using test::relative_error;
using test::Tolerance;

namespace {

at::Tensor gram(std::string_view spec, const at::Tensor& own, const at::Tensor& others) {
  const auto kernel = create<StateKernel>(spec)->fit(own);
  return kernel(kernel.map(others), kernel.map(own));
}

}  // namespace

TEST_SUITE_BEGIN("icl");

TEST_CASE("every kernel is symmetric, positive semi-definite, and one row's values are the row's alone") {
  for (const auto& method : methods<StateKernel>()) {
    CAPTURE(method.name);
    Random random(1);
    const auto own = random.normal({7, 5}), others = random.normal({4, 5});
    const auto k = gram(method.name, own, own);
    CHECK(relative_error(k, k.t()) < Tolerance::kSameAlgebra);
    CHECK(std::get<0>(at::linalg_eigh(k)).min().item<double>() > -1e-12);
    const auto cross = gram(method.name, own, others);
    CHECK(cross.sizes() == at::IntArrayRef({4, 7}));
    CHECK(relative_error(gram(method.name, own, others.narrow(0, 2, 1)), cross.narrow(0, 2, 1)) <
          Tolerance::kSameAlgebra);
    CHECK_THROWS_WITH_AS(create<StateKernel>(std::string(method.name) + ":nonsense=1"), doctest::Contains("known:"),
                         InvalidArgument);
    const auto zero = gram(method.name, at::zeros({1, 5}, at::kDouble), at::zeros({2, 5}, at::kDouble));
    CHECK(at::isfinite(zero).all().item<bool>());
  }
}

TEST_CASE("the ridge view under every kernel is a regression on it, and its leave-one-out is refitting") {
  for (const std::string spec :
       {"dot", "dot:center=true", "cosine", "cosine:center=true", "rbf", "rbf:bandwidth=2", "rbf:normalize=true"}) {
    for (const std::int64_t n : {7, 25}) {
      CAPTURE(spec);
      CAPTURE(n);
      const auto task = made_task({.demonstrations = n, .features = 10}, 2);
      const RidgeOptions options = Paper{.lambda = 0.4, .kernel = spec};
      const auto scores = ridge_scores(task, options);
      const auto k = gram(spec, task.states[0], task.states[0]),
                 cross = gram(spec, task.states[0], task.query_states[0]);
      const auto y = test::target_rows(task.labels, task.classes),
                 targets = test::target_rows(task.query_labels, task.classes);
      const auto predicted = [&](const at::Tensor& kept) {
        const auto own = k.index_select(0, kept).index_select(1, kept);
        return cross.index_select(1, kept).mm(
            at::linalg_solve(own + 0.4 * at::eye(own.size(0), at::kDouble), y.index_select(0, kept)));
      };
      const auto loss = [&](const at::Tensor& prediction) { return (prediction - targets).square().sum(1) / 2; };
      const auto everyone = at::arange(n, at::kLong);
      CHECK(relative_error(scores.prediction, predicted(everyone)) < Tolerance::kSameAlgebra);
      for (std::int64_t i = 0; i < n; ++i) {  // the kernel stays as fitted on all
        const auto rest = predicted(everyone.ne(i).nonzero().squeeze(1));
        CHECK(relative_error(scores.leave_one_out.select(1, i), loss(rest) - loss(predicted(everyone))) < 1e-11);
      }
      // any kernel has features: the square root of the one over demonstrations and queries together
      const auto all = at::cat({task.states[0], task.query_states[0]});
      const auto fitted = create<StateKernel>(spec)->fit(task.states[0]);
      const auto [values, vectors] = at::linalg_eigh(fitted(fitted.map(all), fitted.map(all)));
      const auto features = vectors * values.clamp_min(0).sqrt();
      auto same = task;
      same.states = features.narrow(0, 0, n).unsqueeze(0);
      same.query_states = features.narrow(0, n, 4).unsqueeze(0);
      CHECK(relative_error(scores, test::by_definition(same, 0, Paper{.lambda = 0.4})) < 1e-11);
    }
  }
}

TEST_CASE("dot: centring takes the demonstrations' mean from both sides") {
  const auto own = Random(3).normal({4, 6}), others = Random(4).normal({2, 6});
  CHECK(relative_error(gram("dot", own, others), others.mm(own.t())) == 0);
  const auto mean = own.mean(0);
  CHECK(relative_error(gram("dot:center=true", own, others), (others - mean).mm((own - mean).t())) <
        Tolerance::kSameAlgebra);
}

TEST_CASE("cosine: lengths do not count, and a zero state is like nothing") {
  const auto own = Random(3).normal({4, 6}), others = Random(4).normal({2, 6});
  CHECK(relative_error(gram("cosine", own, others), gram("cosine", own * 7, others * 0.01)) < Tolerance::kSameAlgebra);
  CHECK(gram("cosine", own, own)[2][2].item<double>() == doctest::Approx(1));
  CHECK(gram("cosine", own, at::zeros({1, 6}, at::kDouble)).abs().max().item<double>() == 0);
}

TEST_CASE("rbf: the bandwidth is the median of the distances between states that differ") {
  const auto line = at::tensor({0.0, 1.0, 3.0, 3.0}, at::kDouble).unsqueeze(1);  // distances 1 3 3 2 2 (0)
  const auto k = gram("rbf", line, line);
  CHECK(k[0][1].item<double>() == doctest::Approx(std::exp(-1 / 8.)));
  CHECK(k[0][3].item<double>() == doctest::Approx(std::exp(-9 / 8.)));
  CHECK(k[2][3].item<double>() == 1);
  CHECK(gram("rbf:bandwidth=1", line, line)[0][1].item<double>() == doctest::Approx(std::exp(-0.5)));
  const auto two = Random(6).normal({2, 9}), copies = two.index_select(0, at::tensor({0, 0, 0, 0, 1}, at::kLong));
  CHECK(gram("rbf", copies, copies)[0][4].item<double>() == doctest::Approx(std::exp(-0.5)));
  CHECK(gram("rbf", copies, copies)[0][3].item<double>() == 1);
  // far from the origin, where squared lengths dwarf distances
  const auto near = Random(7).normal({6, 9}), far = near + 1e6 / 3;
  CHECK(relative_error(gram("rbf", far, far), gram("rbf", near, near)) < 1e-8);
  CHECK(gram("rbf", at::ones({1, 3}, at::kDouble), at::ones({1, 3}, at::kDouble))[0][0].item<double>() == 1);
  CHECK_THROWS_WITH_AS(create<StateKernel>("rbf:bandwidth=-1"), "rbf: option bandwidth = -1, expected >= 0",
                       InvalidArgument);
}

TEST_SUITE_END();
