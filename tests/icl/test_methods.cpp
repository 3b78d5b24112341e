// The contract of every method that scores demonstrations, and the baselines.
#include "made.h"
#include "whence/icl/advice.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;

namespace {

/// A task with all that any method asks for.
IclTask full_task() {
  auto task = test::made_task({.layers = 2}, 1);
  Random random(2);
  task.embeddings = random.normal({8, 6});
  task.query_embeddings = random.normal({4, 6});
  task.attention = random.uniform({2, 3, 4, 8}, 0, 1);
  task.surprisal = random.uniform({8}, 0, 5);
  return task;
}

/// The task with all that is of floating point in `type`.
IclTask in_type(IclTask task, at::ScalarType type) {
  for (auto* x :
       {&task.states, &task.query_states, &task.embeddings, &task.query_embeddings, &task.attention, &task.surprisal}) {
    *x = x->to(type);
  }
  return task;
}

/// The task without what `needs` leaves out.
IclTask only(IclTask task, const IclNeeds& needs) {
  const auto keep = [](bool needed, at::Tensor& x) { x = needed ? x : at::Tensor(); };
  keep(needs.states, task.states);
  keep(needs.states, task.query_states);
  keep(needs.embeddings, task.embeddings);
  keep(needs.embeddings, task.query_embeddings);
  keep(needs.attention, task.attention);
  keep(needs.surprisal, task.surprisal);
  return task;
}

}  // namespace

TEST_SUITE_BEGIN("icl");

TEST_CASE("every method scores each demonstration, for each query or itself, finitely and twice to the bit") {
  const auto task = full_task();
  for (const auto& method : methods<IclMethod>()) {
    CAPTURE(method.name);
    const auto scores = create<IclMethod>(method.name)->score(task);
    const auto again = create<IclMethod>(method.name)->score(task);
    REQUIRE((scores.test.defined() || scores.self.defined()));
    if (scores.test.defined()) {
      CHECK(scores.test.sizes() == at::IntArrayRef({4, 8}));
      CHECK((scores.test.scalar_type() == at::kDouble));
      CHECK(at::isfinite(scores.test).all().item<bool>());
      CHECK(at::equal(scores.test, again.test));
    }
    if (scores.self.defined()) {
      CHECK(scores.self.sizes() == at::IntArrayRef({8}));
      CHECK(at::isfinite(scores.self).all().item<bool>());
      CHECK(at::equal(scores.self, again.self));
    }
    // what comes in float32 is widened before anything is computed
    const auto narrow = in_type(task, at::kFloat);
    const auto of_narrow = create<IclMethod>(method.name)->score(narrow);
    const auto of_widened = create<IclMethod>(method.name)->score(in_type(narrow, at::kDouble));
    CHECK(of_narrow.test.defined() == scores.test.defined());
    CHECK(of_narrow.self.defined() == scores.self.defined());
    CHECK((!scores.test.defined() || at::equal(of_narrow.test, of_widened.test)));
    CHECK((!scores.self.defined() || at::equal(of_narrow.self, of_widened.self)));
    auto bad = task;
    bad.labels = at::full({8}, 9, at::kLong);
    CHECK_THROWS_WITH_AS(create<IclMethod>(method.name)->score(bad),
                         "icl: labels[0] = 9, expected 0 .. 2 for 3 classes", InvalidArgument);
    CHECK_THROWS_WITH_AS(create<IclMethod>(std::string(method.name) + ":nonsense=1"),
                         doctest::Contains("unknown option \"nonsense\", "), InvalidArgument);
  }
  CHECK_THROWS_WITH_AS(create<IclMethod>("rigde"),
                       doctest::Contains("unknown method \"rigde\"; did you mean \"ridge\"?"), InvalidArgument);
  CHECK(resolved_spec<IclMethod>("ridge:kernel=rbf:bandwidth=2,lambda=3") ==
        "ridge:lambda=3,self-lambda=0,regulariser=false,kernel=rbf:bandwidth=2,projection=0,seed=0");
}

TEST_CASE("every method reads what it says it needs, and no more") {
  const auto task = full_task();
  for (const auto& known : methods<IclMethod>()) {
    CAPTURE(known.name);
    const auto method = create<IclMethod>(known.name);
    const auto needs = method->needs();
    const auto whole = method->score(task), some = method->score(only(task, needs));
    const auto same = [](const at::Tensor& a, const at::Tensor& b) {
      return a.defined() == b.defined() && (!a.defined() || at::equal(a, b));
    };
    CHECK(same(whole.test, some.test));
    CHECK(same(whole.self, some.self));
    for (const auto part : {&IclNeeds::states, &IclNeeds::embeddings, &IclNeeds::attention, &IclNeeds::surprisal}) {
      if (needs.*part) {
        auto less = needs;
        less.*part = false;
        CHECK_THROWS_AS(method->score(only(task, less)), InvalidArgument);
      }
    }
  }
}

TEST_CASE("every method's regression makes its scores, and it advises where its self scores tell wrong labels") {
  const auto task = full_task();
  for (const auto& known : methods<IclMethod>()) {
    CAPTURE(known.name);
    const auto method = create<IclMethod>(known.name);
    const auto scores = method->score(task);
    if (const auto* options = method->regression()) {
      CHECK(test::relative_error(scores, ridge_scores(task, *options)) == 0);
    }
    CHECK(method->advise(task, scores, {}).has_value() == !method->self_by().empty());
  }
  const auto options = suspecting_ridge_options();
  const auto method = ridge_method(options);
  CHECK(method->regression()->kernel == options.kernel);
  CHECK(test::relative_error(method->score(task), ridge_scores(task, options)) == 0);
  auto bad = options;
  bad.lambda = -1;
  CHECK_THROWS_WITH_AS(ridge_method(bad), doctest::Contains("option lambda = -1, expected > 0"), InvalidArgument);
  auto no_classes = task;
  no_classes.targets = at::ones({8, 2}, at::kDouble);
  no_classes.query_targets = at::ones({4, 2}, at::kDouble);
  CHECK_FALSE(method->advise(no_classes, method->score(no_classes), {}).has_value());
}

TEST_CASE("embedding: cosine of the embeddings given") {
  const auto task = full_task();
  const auto scores = create<IclMethod>("embedding")->score(task);
  const auto unit = [](const at::Tensor& x) { return x / x.norm(2, {1}, true); };
  CHECK(relative_error(scores.test, unit(task.query_embeddings).mm(unit(task.embeddings).t())) <
        Tolerance::kSameAlgebra);
  CHECK_FALSE(scores.self.defined());
  CHECK_FALSE(scores.prediction.defined());
  auto bad = task;
  bad.embeddings.reset();
  CHECK_THROWS_WITH_AS(create<IclMethod>("embedding")->score(bad), "icl: embeddings are absent, expected [n, e]",
                       InvalidArgument);
  bad.embeddings = task.embeddings.narrow(1, 0, 5);
  CHECK_THROWS_WITH_AS(create<IclMethod>("embedding")->score(bad),
                       "icl: query embeddings are Double [4, 6], expected [q, e] = [4, 5] of a floating type",
                       InvalidArgument);
}

TEST_CASE("attention: the mean over whatever comes before queries and demonstrations") {
  auto task = full_task();
  const auto method = create<IclMethod>("attention");
  CHECK(relative_error(method->score(task).test, task.attention.mean(at::IntArrayRef{0, 1})) < Tolerance::kSameAlgebra);
  const auto one = task.attention[1][2].clone();
  task.attention = one;
  CHECK(relative_error(method->score(task).test, one) == 0);
  task.attention = one.narrow(1, 0, 7);
  CHECK_THROWS_WITH_AS(method->score(task),
                       "icl: attention weights are Double [4, 7], expected [..., q, n] = [4, 8] of a floating type",
                       InvalidArgument);
  task.attention.reset();
  CHECK_THROWS_WITH_AS(method->score(task), "icl: attention weights are absent, expected [..., q, n]", InvalidArgument);
  task.attention = one.clone().fill_(NAN);
  CHECK_THROWS_AS(method->score(task), NumericalError);
}

TEST_CASE("surprisal: less the mean of its label's, or of all where the label is alone") {
  auto task = full_task();
  task.labels = at::tensor({0, 0, 1, 0, 2, 1, 1, 1}, at::kLong);
  task.surprisal = at::tensor({1., 2., 5., 6., 9., 1., 1., 1.}, at::kDouble);
  const auto wanted = at::tensor({-2., -1., 3., 3., 5.75, -1., -1., -1.}, at::kDouble);
  CHECK(relative_error(create<IclMethod>("surprisal")->score(task).self, wanted) < Tolerance::kSameAlgebra);
  CHECK(at::equal(create<IclMethod>("surprisal:center=false")->score(task).self, task.surprisal));
  CHECK_FALSE(create<IclMethod>("surprisal")->score(task).test.defined());
  task.surprisal.reset();
  CHECK_THROWS_WITH_AS(create<IclMethod>("surprisal")->score(task), "icl: surprisals are absent, expected [n]",
                       InvalidArgument);
}

TEST_CASE("random: the seed's, and standard normal") {
  auto task = test::made_task({.demonstrations = 200, .queries = 100});
  const auto scores = create<IclMethod>("random:seed=5")->score(task);
  CHECK(at::equal(scores.test, create<IclMethod>("random:seed=5")->score(task).test));
  CHECK_FALSE(at::equal(scores.test, create<IclMethod>("random:seed=6")->score(task).test));
  CHECK(std::abs(scores.test.mean().item<double>()) < 4 / std::sqrt(20000.));
  CHECK(scores.test.square().mean().item<double>() == doctest::Approx(1).epsilon(4 * std::sqrt(2 / 20000.)));
  CHECK(scores.self.sizes() == at::IntArrayRef({200}));
  CHECK_THROWS_WITH_AS(create<IclMethod>("random:seed=-1"), doctest::Contains("option seed = -1, expected >= 0"),
                       InvalidArgument);
}

TEST_SUITE_END();
