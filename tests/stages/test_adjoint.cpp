// The multi-stage adjoint against truth (chain_truth.h) over stages that train everything or the head;
// test_tuned_chains.cpp has the others.
#include <torch/csrc/autograd/autograd.h>

#include "stages/chain_truth.h"
#include "support/near.h"
#include "support/some.h"

using namespace whence;
using test::Inverter;
using test::relative_error;
using test::toy_queries;

namespace {

const std::vector<std::vector<test::ToyStage>> kChains{
    {{"full", "cross-entropy"}},
    {{"full", "squared-error"}, {"head", "squared-error"}},
    {{"full", "squared-error"}, {"full:proximity=0.3", "cross-entropy"}},
    {{"full", "cross-entropy"}, {"full:proximity=0.3", "squared-error", 0.05, 10}, {"head", "cross-entropy", 0.1, 9}},
    {{"full", "squared-error"}, {"head", "cross-entropy"}, {"full:proximity=0.5", "squared-error"}},
    {{"full", "squared-error"}, {"full:proximity=0.3", "squared-error"}, {"full:proximity=0.2", "squared-error"}},
    {{"full", "cross-entropy:smoothing=0.2"}, {"full:proximity=0.3", "binary-cross-entropy"}},
};

/// A stage before the last that trains its own head alone hands on nothing of its own.
bool only_head(const Chain& chain, std::size_t stage) {
  return stage + 1 < chain.size() && chain[stage].objective.trained().without("head.").empty();
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("scores equal the dense recursion over one, two and three stages of every kind") {
  for (std::size_t c = 0; c < test::some(kChains, 4).size(); ++c) {
    CAPTURE(c);
    const auto chain = test::toy_chain(kChains[c], "mlp:widths=4,activation=tanh", 11 + c);
    const auto queries = toy_queries(chain);
    const double damping = 0.2;  // the toy nets need not be at a positive definite point
    const auto truth = test::dense_scores(chain, queries, test::damped_inverse(damping));
    for (const char* solver : {"direct", "cg:relative-tolerance=1e-13"}) {
      CAPTURE(solver);
      const auto scores = Inverter("hessian", solver, {.damping = damping}).scores_of_all(chain, queries);
      for (std::size_t s = 0; s < chain.size(); ++s) {
        CAPTURE(s);
        CHECK(relative_error(scores[s], truth[s]) < 1e-8);
        const bool felt = !only_head(chain, s);
        CHECK((truth[s].abs().max().item<double>() > 1e-6) == felt);
      }
    }
  }
}

TEST_CASE("scores equal central differences of retraining the whole chain") {
  for (std::size_t c = 0; c < test::some(kChains, 3).size(); ++c) {
    CAPTURE(c);
    const auto chain = test::toy_chain(kChains[c], "mlp:widths=3,activation=tanh", 21 + c);
    const auto queries = toy_queries(chain, 1);
    const auto of_all = Inverter("hessian", "direct").scores_of_all(chain, queries);
    for (std::size_t s = 0; s < chain.size(); ++s) {
      CAPTURE(s);
      const auto scores = of_all[s][0];
      const double size = scores.abs().max().item<double>();
      for (const std::int64_t row : {0, 4}) {
        const double truth = test::retrained_derivative(chain, s, row, queries, 0);
        CAPTURE(truth);
        CHECK(std::abs(scores[row].item<double>() - truth) <= 1e-5 * size);
      }
    }
  }
}

TEST_CASE("one stage of ridge regression: the score gives the exact leave-one-out change in closed form") {
  auto chain = test::toy_chain({{"full", "squared-error", 0.3, 20}}, "linear:bias=false", 5);
  const auto& objective = chain[0].objective;
  Dataset::Contents contents;
  contents.inputs = Random(7).normal({4, 3});
  contents.targets = at::zeros({4, 2}, at::kDouble);
  contents.ids = at::arange(4);
  const auto queries = Dataset(contents).to(at::kDouble, at::kCPU);
  const auto all = objective.data().batch(0, 20);
  const auto& x = all.inputs;
  const auto h = x.t().mm(x) / 20 + 0.3 * at::eye(3, at::kDouble);
  const auto scores = Inverter("hessian", "direct").scores(chain, 0, queries, Measurement::kLoss);
  for (std::int64_t i = 0; i < 20; ++i) {
    // Exact refit without example i, the mean still over 20.
    const auto without = h - x[i].unsqueeze(1).mm(x[i].unsqueeze(0)) / 20;
    const auto right = (x.t().mm(all.targets) - x[i].unsqueeze(1).mm(all.targets[i].unsqueeze(0))) / 20;
    const auto refit = at::linalg_solve(without, right);
    const auto full = at::linalg_solve(h, x.t().mm(all.targets) / 20);
    const double leverage = at::dot(x[i], at::mv(at::linalg_inv(h), x[i])).item<double>() / 20;
    for (std::int64_t q = 0; q < 4; ++q) {
      // loss = |t x|^2 / 2 for zero targets: its derivative along the change is what the score predicts, and the
      // prediction itself moves by the score's direction over 1 - leverage (Cook and Weisberg 1982).
      const auto prediction = at::mv(full.t(), queries.batch(q, q + 1).inputs[0]);
      const auto moved = at::mv(refit.t(), queries.batch(q, q + 1).inputs[0]);
      const double exact = at::dot(prediction, moved - prediction).item<double>();
      CHECK(-scores[q][i].item<double>() / 20 / (1 - leverage) == doctest::Approx(exact).epsilon(1e-9));
    }
  }
}

TEST_CASE("proximity to infinity meets the fixed embedding as O(1/c)") {
  const auto fixed = test::toy_chain({{"full", "squared-error"}, {"head", "squared-error"}});
  const auto queries = toy_queries(fixed);
  const Inverter inverter("hessian", "direct");
  const auto limit = inverter.scores(fixed, 0, queries, Measurement::kLoss);
  std::vector<double> gaps;
  for (const char* c : {"1e2", "1e3", "1e4"}) {
    const auto pulled =
        test::toy_chain({{"full", "squared-error"}, {std::string("full:proximity=") + c, "squared-error"}});
    gaps.push_back(relative_error(inverter.scores(pulled, 0, queries, Measurement::kLoss), limit));
  }
  CHECK(gaps[0] < 0.2);
  CHECK(gaps[1] == doctest::Approx(gaps[0] / 10).epsilon(0.2));
  CHECK(gaps[2] == doctest::Approx(gaps[1] / 10).epsilon(0.2));
}

TEST_CASE("cg, lissa and direct agree to their tolerances on a chain, under both families") {
  const auto chain = test::toy_chain(kChains[3], "mlp:widths=4,activation=tanh", 3);
  const auto queries = toy_queries(chain);
  for (const char* family : {"hessian", "gauss-newton", "hessian:mixed=finite-difference"}) {
    CAPTURE(family);
    const InverseOptions damping{.damping = 0.2};
    for (std::size_t s = 0; s < chain.size(); ++s) {
      const auto direct = Inverter(family, "direct", damping).scores(chain, s, queries, Measurement::kMargin);
      CHECK(
          relative_error(
              Inverter(family, "cg:relative-tolerance=1e-10", damping).scores(chain, s, queries, Measurement::kMargin),
              direct) < 1e-6);
      CHECK(relative_error(Inverter(family, "lissa:relative-tolerance=1e-10", damping)
                               .scores(chain, s, queries, Measurement::kMargin),
                           direct) < 1e-6);
    }
  }
}

TEST_CASE("relative damping is the mean eigenvalue's share, reported as the effective damping") {
  const auto chain = test::toy_chain(kChains[0]);
  const std::shared_ptr<const Curvature> curvature = create<Curvature>("gauss-newton");
  const InverseOptions options{.damping = 0.01, .relative_damping = 0.5};
  Adjoint adjoint(chain, {curvature, create<Solver>("cg"), options});
  adjoint.sweep(directions_of(at::ones({1, count_entries(chain[0].theta)}, at::kDouble), chain[0].objective.trained()),
                0, {});
  const auto& evidence = adjoint.evidence()[0];
  const auto n = count_entries(chain[0].theta);
  const double mean = curvature->operator_at({chain[0].objective, chain[0].theta, {}})
                          ->apply(at::eye(n, at::kDouble))
                          .diagonal()
                          .mean()
                          .item<double>();
  CHECK(evidence.mean_eigenvalue == doctest::Approx(mean).epsilon(1e-10));  // rows give it exactly, for no product
  CHECK(evidence.damping == doctest::Approx(0.01 + 0.5 * evidence.mean_eigenvalue));
  CHECK(evidence.products > 0);
  Adjoint probed(chain, {create<Curvature>("hessian"), create<Solver>("cg"), options});
  probed.sweep(directions_of(at::ones({1, count_entries(chain[0].theta)}, at::kDouble), chain[0].objective.trained()),
               0, {});
  CHECK(probed.evidence()[0].products > 32);  // by random signs, which are products
}

namespace {

/// Answers `factor` times too much, and says that all is well.
class Boaster : public Solver {
 public:
  explicit Boaster(double factor) : factor_(factor) {}

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    return std::make_unique<Boast>(system, direct_->prepare(system), factor_);
  }

 private:
  class Boast : public Inverse {
   public:
    Boast(const System& system, std::unique_ptr<Inverse> exact, double factor)
        : Inverse(system), exact_(std::move(exact)), factor_(factor) {}

   protected:
    std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override {
      auto out = exact_->apply(b, x, progress);
      x = x * factor_;
      for (auto& summary : out) {
        summary.termination = Termination::kConverged;
        summary.relative_residual = 5e-3;
      }
      return out;
    }

   private:
    std::unique_ptr<Inverse> exact_;
    double factor_;
  };
  std::unique_ptr<Solver> direct_ = create<Solver>("direct");
  double factor_;
};

}  // namespace

TEST_CASE("what a solve in float32 says is held against float64 at the tolerance of rankings too") {
  auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  stage.objective = stage.objective.to(at::kFloat);
  for (auto& value : stage.theta) {
    value = value.to(at::kFloat);
  }
  const Chain chain{stage};
  for (const double off : {0.02, 0.3}) {
    CAPTURE(off);
    Adjoint adjoint(chain, {create<Curvature>("hessian"), std::make_shared<Boaster>(1 + off), {.damping = 0.1}});
    const auto summary =
        adjoint
            .sweep(directions_of(at::ones({1, count_entries(stage.theta)}, at::kFloat), stage.objective.trained()), 0,
                   {})[0]
            .summaries.front();
    CHECK(summary.relative_residual == doctest::Approx(off).epsilon(1e-2));
    CHECK((summary.termination == Termination::kConverged) == (off < 0.05));
    CHECK((summary.message.find("in float64: rounding") != std::string::npos) == (off > 0.05));
  }
}

TEST_CASE("an indefinite Hessian ends the sweep with the stage's name and the remedy") {
  auto chain = test::toy_chain({{"full", "squared-error"}});
  chain[0].theta = {};
  auto draws = Random(5);
  for (const auto& value : chain[0].objective.trained().values()) {
    chain[0].theta.push_back(2 * draws.normal(value.sizes()));  // far from a minimum
  }
  for (const char* solver : {"cg", "direct"}) {
    CHECK_THROWS_WITH_AS(Inverter("hessian", solver).scores(chain, 0, toy_queries(chain), Measurement::kLoss),
                         doctest::Contains("stage stage0: the curvature with damping 0 is not positive definite"),
                         NumericalError);
    CHECK_THROWS_WITH_AS(Inverter("hessian", solver).scores(chain, 0, toy_queries(chain), Measurement::kLoss),
                         doctest::Contains(" or more"), NumericalError);  // the damping to type
  }
  CHECK_THROWS_WITH_AS(Inverter("hessian", "lissa").scores(chain, 0, toy_queries(chain), Measurement::kLoss),
                       doctest::Contains("diverged"), NumericalError);
  const auto scores = Inverter("gauss-newton", "cg").scores(chain, 0, toy_queries(chain), Measurement::kLoss);
  CHECK(at::isfinite(scores).all().item<bool>());
}

TEST_SUITE_END();
