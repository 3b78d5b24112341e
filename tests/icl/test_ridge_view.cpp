// The ridge view against its definition, on matrices small enough to take the definition at its word.
#include <limits>

#include "made.h"
#include "whence/core/parallel.h"

using namespace whence;
using test::by_definition;
using test::made_task;
using test::Paper;
using test::relative_error;
using test::Tolerance;
using Form = RidgeView::Form;

namespace {

IclScores in_form(Form form, const IclTask& task, const RidgeOptions& options) {
  const auto m = task.states[0], queries = task.query_states[0];
  const bool dual = form == Form::kDual;
  const RidgeView view(form, dual ? m.mm(m.t()) : m, test::target_rows(task.labels, task.classes), options);
  auto scores = view.score(dual ? queries.mm(m.t()) : queries, test::target_rows(task.query_labels, task.classes));
  scores.self = view.self();
  scores.foretold = view.foretold(test::target_rows(task.labels, task.classes));
  return scores;
}

/// All but the demonstration `left_out` of the first layer.
IclTask without(const IclTask& task, std::int64_t left_out) {
  const auto kept = at::arange(task.demonstrations(), at::kLong).ne(left_out).nonzero().squeeze(1);
  auto rest = task;
  rest.labels = task.labels.index_select(0, kept);
  rest.states = task.states.index_select(1, kept);
  return rest;
}

}  // namespace

TEST_SUITE_BEGIN("icl");

TEST_CASE("both forms are the definition, whichever of n and d is larger") {
  for (const std::int64_t n : {2, 7, 12, 13, 30}) {
    for (const auto& options : {Paper{}, Paper{.lambda = 0.3, .self_lambda = 2}, Paper{.lambda = 5, .self_lambda = 0.1},
                                Paper{.lambda = 0.7, .self_lambda = 0.2, .regulariser = false}}) {
      CAPTURE(n);
      CAPTURE(options.lambda);
      const auto task = made_task({.demonstrations = n, .features = 12}, static_cast<std::uint64_t>(n));
      const auto truth = by_definition(task, 0, options);
      CHECK(relative_error(ridge_scores(task, options), truth) < Tolerance::kSameAlgebra);
      // the larger of the two systems has eigenvalues of lambda alone, and loses a digit
      CHECK(relative_error(in_form(Form::kDual, task, options), truth) < 10 * Tolerance::kSameAlgebra);
      CHECK(relative_error(in_form(Form::kPrimal, task, options), truth) < 10 * Tolerance::kSameAlgebra);
    }
  }
}

TEST_CASE("signs: a demonstration like the query helps it with the same label and hurts it with another") {
  IclTask task{.labels = at::tensor({0, 1}, at::kLong), .classes = 2, .query_labels = at::tensor({0, 1}, at::kLong)};
  task.states = at::eye(2, at::kDouble).unsqueeze(0);
  task.query_states = at::ones({1, 2, 2}, at::kDouble) * at::tensor({1.0, 0.0}, at::kDouble);  // both like the first
  for (const bool regulariser : {false, true}) {
    const auto scores = ridge_scores(task, Paper{.regulariser = regulariser});
    CHECK(scores.leave_one_out[0][0].item<double>() > 0);
    CHECK(scores.leave_one_out[1][0].item<double>() < 0);
    CHECK(scores.test[0][0].item<double>() > scores.test[0][1].item<double>());
    CHECK(scores.test[1][0].item<double>() < scores.test[1][1].item<double>());
    if (!regulariser) {  // the other demonstration is orthogonal to the query
      CHECK(scores.test[0][0].item<double>() > 0);
      CHECK(scores.test[0][1].item<double>() == 0);
      CHECK(scores.leave_one_out[0][1].item<double>() == 0);
    }
  }
}

TEST_CASE("leaving one out is exactly refitting without it, by the library's own fit too") {
  for (const std::int64_t n : {6, 30}) {
    const auto task = made_task({.demonstrations = n, .features = 12}, 5);
    const auto targets = test::target_rows(task.query_labels, task.classes);
    const auto all = ridge_scores(task, Paper{});
    for (std::int64_t i = 0; i < n; ++i) {
      const auto loss = [&](const at::Tensor& prediction) { return (prediction - targets).square().sum(1) / 2; };
      const auto change = loss(ridge_scores(without(task, i), Paper{}).prediction) - loss(all.prediction);
      CHECK(relative_error(all.leave_one_out.select(1, i), change) < Tolerance::kSameAlgebra);
    }
  }
}

TEST_CASE("with self-lambda near 0 and n <= d, self is the squared ridge residual") {
  for (const std::int64_t n : {5, 20}) {
    const auto task = made_task({.demonstrations = n, .features = 60}, 2);
    const auto m = task.states[0], y = test::target_rows(task.labels, task.classes);
    const auto squared = (y - m.mm(test::coefficients(m, y, 1))).square().sum(1);
    for (const bool regulariser : {false, true}) {  // off by self-lambda over the smallest eigenvalue of the kernel
      const auto self = ridge_scores(task, Paper{.self_lambda = 1e-9, .regulariser = regulariser}).self;
      CHECK(relative_error(self, squared) < 1e-8);
      const auto closer = ridge_scores(task, Paper{.self_lambda = 1e-13, .regulariser = regulariser}).self;
      CHECK(relative_error(closer, squared) < Tolerance::kSameAlgebra);
    }
  }
}

TEST_CASE("without the regulariser's term, self is leverage times squared residual") {
  const auto task = made_task({}, 3);
  const auto m = task.states[0];
  const auto y = test::target_rows(task.labels, task.classes);
  const RidgeView view(Form::kDual, m.mm(m.t()), y, Paper{.regulariser = false});
  CHECK(relative_error(view.self(), view.leverages() * view.residuals().square().sum(1)) < Tolerance::kSameAlgebra);
  CHECK(relative_error(view.residuals(), y - m.mm(test::coefficients(m, y, 1))) < Tolerance::kSameAlgebra);
}

TEST_CASE("duplicates share what they do, and one demonstration or one class is no special case") {
  auto task = made_task({.demonstrations = 6, .features = 9}, 4);
  task.states[0][5] = task.states[0][2];
  task.labels[5] = task.labels[2];
  for (const double self_lambda : {0., 1e-6}) {
    const auto scores = ridge_scores(task, Paper{.self_lambda = self_lambda});
    CHECK(relative_error(scores.test.select(1, 5), scores.test.select(1, 2)) < Tolerance::kSameAlgebra);
    CHECK(relative_error(scores.leave_one_out.select(1, 5), scores.leave_one_out.select(1, 2)) <
          Tolerance::kSameAlgebra);
    CHECK(relative_error(scores.self[5], scores.self[2]) < 1e-9);  // (|m|^2 / self-lambda) of rounding
  }
  CHECK(relative_error(ridge_scores(task, Paper{}), by_definition(task, 0, Paper{})) < Tolerance::kSameAlgebra);

  const auto one = made_task({.demonstrations = 1, .features = 9, .classes = 2}, 6);
  const auto alone = ridge_scores(one, Paper{}), truth = by_definition(one, 0, Paper{});
  CHECK(relative_error(alone.leave_one_out, truth.leave_one_out) < Tolerance::kSameAlgebra);
  CHECK(relative_error(alone.prediction, truth.prediction) < Tolerance::kSameAlgebra);
  CHECK(alone.test.abs().max().item<double>() < 1e-14);  // its gradient is all there is, and vanishes at the minimum
  CHECK(alone.self.abs().max().item<double>() < 1e-14);
  CHECK(relative_error(ridge_scores(one, Paper{.regulariser = false}),
                       by_definition(one, 0, Paper{.regulariser = false})) < Tolerance::kSameAlgebra);
  const auto same = made_task({.demonstrations = 5, .features = 9, .classes = 1}, 7);
  CHECK(relative_error(ridge_scores(same, Paper{}), by_definition(same, 0, Paper{})) < Tolerance::kSameAlgebra);

  auto nothing = made_task({.demonstrations = 3, .features = 4}, 8);
  nothing.states.zero_();
  const auto scores = ridge_scores(nothing, Paper{.regulariser = false});
  CHECK(scores.test.abs().max().item<double>() == 0);
  CHECK(scores.prediction.abs().max().item<double>() == 0);
}

TEST_CASE("the defaults are the measured ones, and the paper's are at hand") {
  const auto task = made_task({.layers = 2}, 17);
  CHECK(resolved_spec<IclMethod>("ridge") ==
        "ridge:lambda=0.1,self-lambda=0,regulariser=false,kernel=cosine,projection=0,seed=0");
  CHECK(relative_error(ridge_scores(task, detail_ridge_options()), ridge_scores(task, Paper{})) == 0);
  CHECK(relative_error(ridge_scores(task, {}).self, ridge_scores(task, Paper{}).self) > 0.1);
}

TEST_CASE("layers are added, each one that of the layer alone") {
  const auto task = made_task({.layers = 3}, 9);
  const RidgeOptions options = Paper{.lambda = 0.5};
  const auto layers = ridge_scores_by_layer(task, options);
  REQUIRE(layers.size() == 3);
  IclScores sum{layers[0].test.clone(), layers[0].self.clone(), layers[0].leave_one_out.clone(),
                layers[0].prediction.clone(), layers[0].foretold.clone()};
  for (std::int64_t l = 0; l < 3; ++l) {
    CHECK(relative_error(layers[static_cast<std::size_t>(l)], by_definition(task, l, options)) <
          Tolerance::kSameAlgebra);
  }
  for (std::size_t l = 1; l < 3; ++l) {
    sum.test += layers[l].test;
    sum.self += layers[l].self;
    sum.leave_one_out += layers[l].leave_one_out;
    sum.prediction += layers[l].prediction;
    sum.foretold += layers[l].foretold;
  }
  CHECK(relative_error(ridge_scores(task, options), sum) == 0);
  // other targets on the same states: of twice as many columns, each by itself
  const auto y = test::target_rows(task.labels, task.classes);
  const auto both = foretold(task, options, at::cat({y, 3 * y}, 1));
  CHECK(relative_error(both, at::cat({sum.foretold, 3 * sum.foretold}, 1)) < Tolerance::kSameAlgebra);
  CHECK(relative_error(create<IclMethod>("ridge:lambda=0.5,regulariser=true,kernel=dot")->score(task), sum) == 0);
}

TEST_CASE("threads and blocks of queries change rounding alone; a run repeats to the bit") {
  const auto task = made_task({.demonstrations = 150, .features = 300, .queries = 20}, 10);
  const auto before = threads();
  const auto whole = ridge_scores(task, Paper{});
  const auto again = ridge_scores(task, Paper{});
  CHECK(at::equal(whole.test, again.test));
  CHECK(at::equal(whole.self, again.self));
  for (const std::int64_t count : {1, 2, 3}) {
    set_threads(count);
    CHECK(relative_error(ridge_scores(task, Paper{}), whole) < Tolerance::kSameAlgebra);
  }
  set_threads(before);
  for (std::int64_t begin = 0; begin < 20; begin += 7) {
    const auto length = std::min<std::int64_t>(7, 20 - begin);
    auto part = task;
    part.query_labels = task.query_labels.narrow(0, begin, length);
    part.query_states = task.query_states.narrow(1, begin, length);
    const auto scores = ridge_scores(part, Paper{});
    CHECK(relative_error(scores.test, whole.test.narrow(0, begin, length)) < Tolerance::kSameAlgebra);
    CHECK(relative_error(scores.leave_one_out, whole.leave_one_out.narrow(0, begin, length)) < Tolerance::kSameAlgebra);
    CHECK(relative_error(scores.prediction, whole.prediction.narrow(0, begin, length)) < Tolerance::kSameAlgebra);
  }
  auto none = task;
  none.query_labels = task.query_labels.narrow(0, 0, 0);
  none.query_states = task.query_states.narrow(1, 0, 0);
  CHECK(relative_error(ridge_scores(none, Paper{}).self, whole.self) == 0);
  CHECK(ridge_scores(none, Paper{}).test.sizes() == at::IntArrayRef({0, 150}));
}

TEST_CASE("float32 states are widened first, so what is lost is what float32 had lost") {
  const auto task = made_task({.layers = 2}, 11);
  auto narrow = task, rounded = task;
  narrow.states = task.states.to(at::kFloat);
  narrow.query_states = task.query_states.to(at::kFloat);
  rounded.states = narrow.states.to(at::kDouble);
  rounded.query_states = narrow.query_states.to(at::kDouble);
  CHECK(relative_error(ridge_scores(narrow, Paper{}), ridge_scores(rounded, Paper{})) == 0);
  CHECK(relative_error(ridge_scores(narrow, Paper{}), ridge_scores(task, Paper{})) < Tolerance::kFloat);
  CHECK((ridge_scores(narrow, Paper{}).test.scalar_type() == at::kDouble));
  narrow.states.requires_grad_(true);
  CHECK_FALSE(ridge_scores(narrow, Paper{}).test.requires_grad());
}

TEST_CASE("a projection keeps inner products in the mean, and is the seed's") {
  const auto task = made_task({.features = 50}, 12);
  const RidgeOptions options = Paper{.projection = 5, .seed = 3};
  const auto p = Random(3).normal({50, 5}) / std::sqrt(5.0);
  auto projected = task;
  projected.states = task.states.matmul(p);
  projected.query_states = task.query_states.matmul(p);
  CHECK(relative_error(ridge_scores(task, options), ridge_scores(projected, Paper{})) < Tolerance::kSameAlgebra);
  CHECK(relative_error(ridge_scores(task, Paper{.projection = 5, .seed = 4}), ridge_scores(projected, Paper{})) > 0.1);
  CHECK(relative_error(ridge_scores(task, Paper{.projection = 50000, .seed = 4}), ridge_scores(task, Paper{})) < 0.1);
}

TEST_CASE("a query without a label has a prediction and no scores") {
  auto task = made_task({}, 13);
  const auto whole = ridge_scores(task, Paper{});
  task.query_labels[1] = -1;
  const auto scores = ridge_scores(task, Paper{});
  CHECK(relative_error(scores.prediction, whole.prediction) == 0);
  CHECK(at::isnan(scores.test[1]).all().item<bool>());
  CHECK(at::isnan(scores.leave_one_out[1]).all().item<bool>());
  CHECK(relative_error(scores.test[2], whole.test[2]) == 0);
  CHECK(relative_error(scores.leave_one_out[0], whole.leave_one_out[0]) == 0);
}

TEST_CASE("what the ridge view cannot take is one line that names it") {
  const auto task = made_task({.layers = 2}, 14);
  const auto refuses = [&](const RidgeOptions& options, const char* reason) {
    CHECK_THROWS_WITH_AS(ridge_scores(task, options), reason, InvalidArgument);
  };
  refuses(Paper{.lambda = 0}, "ridge: option lambda = 0, expected > 0");
  refuses(Paper{.lambda = -1}, "ridge: option lambda = -1, expected > 0");
  refuses(Paper{.lambda = NAN}, "ridge: option lambda = nan, expected > 0");
  refuses(Paper{.self_lambda = -1e-9}, "ridge: option self-lambda = -1e-09, expected >= 0");
  refuses(Paper{.projection = -1}, "ridge: option projection = -1, expected >= 0");
  refuses(Paper{.kernel = "cosin"}, "unknown kernel \"cosin\"; did you mean \"cosine\"? known: dot, cosine, rbf");

  const auto fails = [&](const auto& change, const char* reason) {
    auto bad = task;
    bad.states = task.states.clone();
    bad.query_states = task.query_states.clone();
    bad.labels = task.labels.clone();
    bad.query_labels = task.query_labels.clone();
    change(bad);
    CHECK_THROWS_WITH_AS(ridge_scores(bad, Paper{}), reason, Error);
  };
  fails([](IclTask& t) { t.labels[5] = 3; }, "icl: labels[5] = 3, expected 0 .. 2 for 3 classes");
  fails([](IclTask& t) { t.labels[0] = -1; }, "icl: labels[0] = -1, expected 0 .. 2 for 3 classes");
  fails([](IclTask& t) { t.query_labels[1] = -2; }, "icl: query labels[1] = -2, expected -1 .. 2 for 3 classes");
  fails([](IclTask& t) { t.classes = 0; }, "icl: classes = 0, expected >= 1");
  fails([](IclTask& t) { t.labels = t.labels.to(at::kDouble); }, "icl: labels are Double [8], expected one int64 each");
  fails([](IclTask& t) { t.query_labels.reset(); }, "icl: query labels are absent, expected one int64 each");
  fails([](IclTask& t) { t.labels = t.labels.narrow(0, 0, 0); }, "icl: 0 demonstrations, expected at least 1");
  fails([](IclTask& t) { t.states = t.states[0]; },
        "icl: states are Double [8, 20], expected [L, n, d] = [any, 8, any] of a floating type");
  fails([](IclTask& t) { t.states = t.states.to(at::kLong); },
        "icl: states are Long [2, 8, 20], expected [L, n, d] = [any, 8, any] of a floating type");
  fails([](IclTask& t) { t.states = t.states.narrow(2, 0, 0); },
        "icl: states are Double [2, 8, 0], expected [L, n, d] = [any, 8, any] of a floating type");
  fails([](IclTask& t) { t.query_states = t.query_states.narrow(2, 0, 19); },
        "icl: query states are Double [2, 4, 19], expected [L, q, d] = [2, 4, 20] of a floating type");
  fails([](IclTask& t) { t.states.reset(); }, "icl: states are absent, expected [L, n, d]");
  fails([](IclTask& t) { t.states[1][3][5] = NAN; },
        "icl: states[1, 3, 5] = nan, expected a finite number (1 of 320 entries are not)");
  fails([](IclTask& t) { t.query_states[0][2][1] = -INFINITY; },
        "icl: query states[0, 2, 1] = -inf, expected a finite number (1 of 160 entries are not)");
  // a sum that overflows is not an entry that does
  auto large = task;
  large.states = at::full({1, 8, 20}, 3e38, at::kFloat);
  large.query_states = at::zeros({1, 4, 20}, at::kFloat);
  CHECK_THROWS_WITH_AS(ridge_scores(large, Paper{}), doctest::Contains("is not positive definite to rounding"),
                       NumericalError);
}

TEST_CASE("a lambda that rounding swallows is said, not computed with") {
  auto task = made_task({.demonstrations = 6}, 15);
  task.states[0][5] = task.states[0][2];
  CHECK_THROWS_WITH_AS(ridge_scores(task, Paper{.self_lambda = 1e-16}),
                       doctest::Contains("the demonstrations' kernel + 1e-16 I is not positive definite to rounding"),
                       NumericalError);
  auto flat = made_task({.demonstrations = 30, .features = 12}, 16);
  flat.states.select(2, 4).copy_(flat.states.select(2, 3));
  CHECK_THROWS_WITH_AS(ridge_scores(flat, Paper{.lambda = 1e-17}),
                       doctest::Contains("the features' second moment + 1e-17 I is not positive definite"),
                       NumericalError);
}

TEST_SUITE_END();
