#include "attribution/made.h"

using namespace whence;
using test::kTwoStages;
using test::looped_gradients;
using test::relative_error;
using test::scores_of;
using test::Tolerance;

namespace {

/// A sink that stops the run after some blocks, as an interruption would, and keeps what it has.
class StoppingSink : public ScoreSink {
 public:
  StoppingSink(std::int64_t queries, std::int64_t examples)
      : values(at::full({queries, examples}, NAN, at::kDouble)), held_(at::zeros({queries, examples}, at::kBool)) {}
  bool has(std::int64_t q, std::int64_t nq, std::int64_t e, std::int64_t ne) const override {
    return held_.narrow(0, q, nq).narrow(1, e, ne).all().item<bool>();
  }
  void block(std::int64_t q, std::int64_t e, const at::Tensor& scores) override {
    if (blocks_left-- == 0) {
      throw Interrupted();
    }
    values.narrow(0, q, scores.size(0)).narrow(1, e, scores.size(1)).copy_(scores);
    held_.narrow(0, q, scores.size(0)).narrow(1, e, scores.size(1)).fill_(true);
    ++written;
  }
  at::Tensor values;
  int blocks_left = 1000, written = 0;

 private:
  at::Tensor held_;
};

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("grad-dot and grad-cos are minus the products of looped gradients; a head counts at its own stage alone") {
  const auto chain = test::toy_chain(kTwoStages);
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  for (std::size_t s = 0; s < 2; ++s) {
    const bool last = s == 1;
    const auto of_queries = looped_gradients(chain[1], queries, Measurement::kLoss, last);
    const auto of_examples = looped_gradients(chain[s], chain[s].objective.data(), Measurement::kLoss, last);
    const auto dots = -of_queries.mm(of_examples.t());
    CHECK(relative_error(scores_of(chain, s, queries, "grad-dot"), dots) < Tolerance::kSameAlgebra);
    // An example's norm is over everything that its stage trains, a query's over what the two share.
    const auto norms = looped_gradients(chain[s], chain[s].objective.data()).norm(2, 1);
    CHECK(relative_error(scores_of(chain, s, queries, "grad-cos"), dots / norms / of_queries.norm(2, 1).unsqueeze(1)) <
          Tolerance::kSameAlgebra);
  }
}

TEST_CASE("an interrupted run goes on with what the sink and the cache hold, to the same scores") {
  const auto chain = test::toy_chain(kTwoStages, "mlp:widths=4,activation=tanh", 1, 3, 5);
  const auto queries = test::toy_data("cross-entropy", 5, 3, Random(99));
  const auto source = test::prepared(chain, "influence");
  StoppingSink whole(5, 12);
  const auto undisturbed = attribute({chain, {0}, {&whole}, queries, Measurement::kLoss, 2}, *source, {}, {});
  for (int stop = 0; stop < 9; ++stop) {  // three blocks of queries times three of examples
    StoppingSink sink(5, 12);
    sink.blocks_left = stop;
    std::map<std::string, ParameterSet> kept;
    const auto cache = test::cache_in(kept);
    const AttributionTask task{chain, {0}, {&sink}, queries, Measurement::kLoss, 2};
    CHECK_THROWS_AS(attribute(task, *source, cache, {}), Interrupted);
    sink.blocks_left = 1000;
    const auto solves = attribute(task, *source, cache, {});
    CHECK(sink.written == 9);
    CHECK(kept.size() == 3);
    REQUIRE(solves.size() == 2);
    CHECK(solves[0].summaries.size() == 5);
    CHECK(solves[1].summaries.size() == 5);
    for (std::size_t i = 0; i < 5; ++i) {  // what is told is what the run without a stop would have told
      CHECK(solves[0].summaries[i].message == undisturbed[0].summaries[i].message);
      CHECK(solves[0].summaries[i].relative_residual == undisturbed[0].summaries[i].relative_residual);
    }
    CHECK(at::equal(sink.values, whole.values));
  }
}

TEST_CASE("what is made with temporaries outlives them") {
  const auto queries = test::toy_data("cross-entropy", 4, 3, Random(99));
  const auto chain = test::toy_chain(kTwoStages);
  for (const char* method : {"influence", "grad-dot", "logra", "rep-sim", "random"}) {
    CAPTURE(method);
    const auto source = create<Attributor>(method)->prepare(
        Chain(chain), {create<Curvature>("hessian"), create<Solver>("cg:relative-tolerance=1e-8"), {.damping = 0.3}});
    const auto scores = score_matrix(Chain(chain), 0, *source, Dataset(queries), Measurement::kLoss);
    CHECK(at::equal(scores, score_matrix(chain, 0, *source, queries, Measurement::kLoss)));
    const VectorCache cache{};
    TokenScorer tokens({Chain(chain), {0}, {}, Dataset(queries)}, *source, cache);
    CHECK_FALSE(tokens.scores(0, 0, 0).defined());  // no texts
  }
}

TEST_CASE("measurements by hand") {
  const auto output = at::tensor({1.0, 2.0, 4.0}, at::kDouble).unsqueeze(0);
  const Batch batch{at::zeros({1, 1}, at::kDouble), at::tensor({1L}), at::tensor({0L}), at::tensor({0L})};
  const auto loss = create<Loss>("cross-entropy");
  const double all = std::log(std::exp(1) + std::exp(2) + std::exp(4)), p = std::exp(2 - all);
  const auto f = [&](const char* name) {
    return measure(parse_measurement(name), *loss, output, batch).item<double>();
  };
  CHECK(f("logit") == 2);
  CHECK(f("log-probability") == doctest::Approx(std::log(p)).epsilon(1e-12));
  CHECK(f("loss") == doctest::Approx(-std::log(p)).epsilon(1e-12));
  CHECK(f("margin") == doctest::Approx(std::log(p / (1 - p))).epsilon(1e-12));
  const Batch values{batch.inputs, at::zeros({1, 3}, at::kDouble), batch.ids, batch.rows};
  CHECK_THROWS_WITH_AS(measure(Measurement::kMargin, *create<Loss>("squared-error"), output, values),
                       doctest::Contains("targets are values"), InvalidArgument);
  const Batch shares{batch.inputs, at::tensor({0.5, 0.5, 0.0}, at::kDouble).unsqueeze(0), batch.ids, batch.rows};
  CHECK(measure(Measurement::kLogProbability, *loss, output, shares).item<double>() ==
        doctest::Approx(1.5 - all).epsilon(1e-12));
  CHECK_THROWS_WITH_AS(measure(Measurement::kLogit, *loss, output, shares), doctest::Contains("not classes"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(parse_measurement("logits"), doctest::Contains("did you mean \"logit\"?"), InvalidArgument);
}

TEST_CASE("measurements of events by hand") {
  const auto loss = create<Loss>("binary-cross-entropy");
  const auto ids = at::tensor({0L});
  const auto f = [&](const char* name, const std::vector<double>& output, const at::Tensor& targets) {
    const Batch batch{at::zeros({1, 1}, at::kDouble), targets, ids, ids};
    return measure(parse_measurement(name), *loss, at::tensor(output, at::kDouble).unsqueeze(0), batch).item<double>();
  };
  const auto no = at::zeros({1, 1}, at::kDouble);
  const double p = 1 / (1 + std::exp(-1.5));
  CHECK(f("logit", {1.5}, no) == 1.5);
  CHECK(f("margin", {1.5}, no) == -1.5);  // log(1 - p) - log p of the event that did not happen
  CHECK(f("log-probability", {1.5}, no) == doctest::Approx(std::log(1 - p)).epsilon(1e-14));
  CHECK(f("loss", {1.5}, no) == doctest::Approx(-std::log(1 - p)).epsilon(1e-14));
  const auto both = at::tensor({1.0, 0.25}, at::kDouble).unsqueeze(0);
  CHECK(f("log-probability", {1.5, 0}, both) == doctest::Approx(std::log(p) - std::log(2.0)).epsilon(1e-14));
  CHECK_THROWS_WITH_AS(f("margin", {1.5, 0}, both), doctest::Contains("2 events, not one"), InvalidArgument);
  const auto second = at::tensor({1L});
  CHECK(f("margin", {7, 1.5}, second) == 1.5);
  CHECK(f("log-probability", {7, 1.5}, second) == doctest::Approx(std::log(p)).epsilon(1e-14));
}

TEST_CASE("trak looks at a margin: of one event it may, of several it says why not") {
  const auto chain = test::traced_chain({{"full", "binary-cross-entropy"}});
  CHECK_THROWS_WITH_AS(
      test::scores_of(chain, 0, test::toy_data("binary-cross-entropy", 2, 3, Random(4)), "trak:dimension=8"),
      doctest::Contains("several events; use logra or grad-dot"), InvalidArgument);
}

TEST_SUITE_END();
