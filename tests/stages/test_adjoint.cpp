// The multi-stage adjoint against truth: a dense recursion that shares no code with it, and retraining of the whole
// chain.
#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/attribution/attribute.h"

using namespace whence;
using test::relative_error;

namespace {

struct Inverter {
  InverseProblem problem;
  Inverter(std::string_view curvature_spec, std::string_view solver_spec, InverseOptions inverse = {})
      : problem{create<Curvature>(curvature_spec), create<Solver>(solver_spec), inverse} {}
  at::Tensor scores(const Chain& chain, std::size_t stage, const Dataset& queries, Measurement measurement,
                    std::string_view method = "influence") const {
    return score_matrix(chain, stage, *create<Attributor>(method)->prepare(chain, problem), queries, measurement);
  }
};

/// The scores of every stage by formulas.md 9.2 with dense matrices, one entry at a time: names of the body are matched
/// by name.
std::vector<at::Tensor> dense_scores(const Chain& chain, const Dataset& queries, double damping) {
  std::vector<at::Tensor> out(chain.size());
  for (std::size_t s = 0; s < chain.size(); ++s) {
    out[s] = at::zeros({queries.size(), chain[s].objective.data().size()}, at::kDouble);
  }
  for (std::int64_t query = 0; query < queries.size(); ++query) {
    const auto& last = chain.back();
    const auto point = leaves(last.theta), from = leaves(last.parent);
    const auto loss = last.objective.example_losses(point, from, queries.batch(query, query + 1)).sum();
    auto q = flatten(gradient(loss, point, false, true));
    auto omega = chain.size() > 1 ? flatten(gradient(loss, from)) : at::Tensor();
    for (auto s = chain.size(); s-- > 0;) {
      const auto& stage = chain[s];
      const auto n = count_entries(stage.theta);
      const auto h = test::dense_hessian(stage.objective, stage.theta, stage.parent);
      const auto v = at::linalg_solve(h.narrow(0, 0, n).narrow(1, 0, n) + damping * at::eye(n, at::kDouble), q);
      for (std::int64_t i = 0; i < stage.objective.data().size(); ++i) {
        const auto at_theta = leaves(stage.theta);
        const auto one =
            stage.objective.example_losses(at_theta, stage.parent, stage.objective.data().batch(i, i + 1)).sum();
        out[s][query][i] = -at::dot(v, flatten(gradient(one, at_theta)));
      }
      if (s == 0) {
        break;
      }
      omega = omega - at::mv(h.narrow(0, n, omega.numel()).narrow(1, 0, n), v);
      // The body that stage s - 1 handed on is its trained body where it trained one, and its own parent's where it did
      // not.
      const auto& before = chain[s - 1];
      const auto& body = stage.objective.parent_layout();
      const bool trains_body = before.objective.trained().contains(body.names().front());
      TensorList q_parts, omega_parts;
      const auto pieces = unflatten(omega, body.values());
      for (const auto& name : before.objective.trained().names()) {
        const auto found = std::find(body.names().begin(), body.names().end(), name) - body.names().begin();
        q_parts.push_back(body.contains(name) ? pieces[static_cast<std::size_t>(found)]
                                              : at::zeros_like(before.objective.trained().at(name)));
      }
      q = flatten(q_parts);
      omega = trains_body ? at::zeros_like(omega) : omega;
    }
  }
  return out;
}

/// d measurement / d w_i * N, by central differences of retraining everything from stage s on.
double retrained_derivative(const Chain& chain, std::size_t stage, std::int64_t row, const Dataset& queries,
                            std::int64_t query) {
  const double h = 1e-3;
  const auto n = chain[stage].objective.data().size();
  double f[2];
  for (int side = 0; side < 2; ++side) {
    auto weights = at::ones({n}, at::kDouble);
    weights[row] = 1 + (side == 0 ? h : -h);
    f[side] =
        measure_all(Measurement::kLoss, test::retrained(chain, stage, weights).back(), queries)[query].item<double>();
  }
  return (f[0] - f[1]) / (2 * h) * static_cast<double>(n);
}

const std::vector<std::vector<test::ToyStage>> kChains{
    {{"full", "cross-entropy"}},
    {{"full", "squared-error"}, {"head", "squared-error"}},
    {{"full", "squared-error"}, {"full:proximity=0.3", "cross-entropy"}},
    {{"full", "cross-entropy"}, {"full:proximity=0.3", "squared-error", 0.05, 10}, {"head", "cross-entropy", 0.1, 9}},
    {{"full", "squared-error"}, {"head", "cross-entropy"}, {"full:proximity=0.5", "squared-error"}},
    {{"full", "squared-error"}, {"full:proximity=0.3", "squared-error"}, {"full:proximity=0.2", "squared-error"}},
};

/// A stage before the last that trains its own head alone hands on nothing of its own.
bool only_head(const Chain& chain, std::size_t stage) {
  return stage + 1 < chain.size() && chain[stage].objective.trained().without("head.").empty();
}

Dataset toy_queries(const Chain& chain, std::int64_t count = 3) {
  const bool classes = chain.back().objective.loss().wants() == TargetKind::kClasses;
  return test::toy_data(classes ? "cross-entropy" : "squared-error", count, 3, Random(99));
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("scores equal the dense recursion over one, two and three stages of every kind") {
  for (std::size_t c = 0; c < kChains.size(); ++c) {
    CAPTURE(c);
    const auto chain = test::toy_chain(kChains[c], "mlp:widths=4,activation=tanh", 11 + c);
    const auto queries = toy_queries(chain);
    const double damping = 0.2;  // the toy nets need not be at a positive definite point
    const auto truth = dense_scores(chain, queries, damping);
    for (const char* solver : {"direct", "cg:relative-tolerance=1e-13"}) {
      CAPTURE(solver);
      const Inverter inverter("hessian", solver, {.damping = damping});
      for (std::size_t s = 0; s < chain.size(); ++s) {
        CAPTURE(s);
        CHECK(relative_error(inverter.scores(chain, s, queries, Measurement::kLoss), truth[s]) < 1e-8);
        const bool felt = !only_head(chain, s);
        CHECK((truth[s].abs().max().item<double>() > 1e-6) == felt);
      }
    }
  }
}

TEST_CASE("scores equal central differences of retraining the whole chain") {
  for (std::size_t c = 0; c < kChains.size(); ++c) {
    CAPTURE(c);
    const auto chain = test::toy_chain(kChains[c], "mlp:widths=3,activation=tanh", 21 + c);
    const auto queries = toy_queries(chain, 1);
    const Inverter inverter("hessian", "direct");
    for (std::size_t s = 0; s < chain.size(); ++s) {
      CAPTURE(s);
      const auto scores = inverter.scores(chain, s, queries, Measurement::kLoss)[0];
      const double size = scores.abs().max().item<double>();
      for (const std::int64_t row : {0, 4}) {
        const double truth = retrained_derivative(chain, s, row, queries, 0);
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
