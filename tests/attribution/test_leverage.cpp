// Removals that a first order misses, against the regression solved again without the example.
#include "attribution/made.h"
#include "whence/attribution/leverage.h"
#include "whence/attribution/self_influence.h"

using namespace whence;

namespace {

constexpr std::int64_t kFar = 7;  // the row that lies far out

/// 40 rows on a line and one far from it, fitted to the minimum with a little decay.
Stage fitted(double decay = 1e-3) {
  auto draws = Random(3);
  Dataset::Contents contents;
  contents.inputs = draws.normal({40, 1});
  contents.targets = 2 * contents.inputs + 0.1 * draws.normal({40, 1});
  contents.inputs[kFar] = 30;
  contents.targets[kFar] = 20;
  contents.ids = at::arange(40, at::kLong) + 100;
  const std::shared_ptr<const Model> model = create<Model>("linear");
  const auto data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
  ParameterSet theta;
  theta.add("head.weight", at::zeros({1, 1}, at::kDouble));
  theta.add("head.bias", at::zeros({1}, at::kDouble));
  Stage stage{"fit",
              Objective(model, create<Loss>("squared-error"), create<Tuning>("full"), data, decay, theta, {}, 16),
              create<Optimizer>("lbfgs:tolerance=1e-12"),
              theta.values(),
              {}};
  TrainingState state{clone(theta.values()), 0, {}};
  stage.optimizer->minimise(stage.objective, {}, state, Random(0), {});
  stage.theta = detach(state.theta);
  return stage;
}

/// What the queries' losses change by when the fit is made again without the row: the normal equations.
at::Tensor refitted_change(const Stage& stage, std::int64_t row, const Dataset& queries) {
  const auto& data = stage.objective.data();
  const auto all = data.batch(0, data.size());
  const auto x = at::cat({all.inputs, at::ones({data.size(), 1}, at::kDouble)}, 1);
  auto weights = at::full({data.size(), 1}, 1.0 / static_cast<double>(data.size()), at::kDouble);
  weights[row] = 0;
  const auto system = (x * weights).t().mm(x) + stage.objective.weight_decay() * at::eye(2, at::kDouble);
  const auto fit = at::linalg_solve(system, (x * weights).t().mm(all.targets));
  auto moved = stage;
  moved.theta = {fit[0].view({1, 1}), fit[1]};
  return measure_all(Measurement::kLoss, moved, queries) - measure_all(Measurement::kLoss, stage, queries);
}

}  // namespace

TEST_SUITE_BEGIN("attribution");

TEST_CASE("a row far out of a regression: its leverage, and the removal that first order misses by it") {
  const Chain chain{fitted()};
  const auto& data = chain[0].objective.data();
  Dataset::Contents asked;  // one far out on the line of the others, and two amid them
  asked.inputs = at::tensor({8.0, 0.2, -0.1}, at::kDouble).unsqueeze(1);
  asked.targets = 2 * asked.inputs;
  asked.ids = at::arange(3, at::kLong);
  const auto queries = Dataset(std::move(asked)).to(at::kDouble, at::kCPU);
  const auto x = at::cat({data.batch(0, 40).inputs, at::ones({40, 1}, at::kDouble)}, 1);
  const auto h = x.t().mm(x) / 40 + 1e-3 * at::eye(2, at::kDouble);
  const double leverage = x[kFar].matmul(at::linalg_inv(h)).dot(x[kFar]).item<double>() / 40;
  REQUIRE(leverage > 0.8);
  for (const char* solver : {"direct", "cg:relative-tolerance=1e-12"}) {
    CAPTURE(solver);
    const auto source =
        create<Attributor>("influence")->prepare(chain, {create<Curvature>("hessian"), create<Solver>(solver)});
    const auto scores = score_matrix(chain, 0, *source, queries, Measurement::kLoss);
    const auto removals = largest_removals(scores, kLookedForLeverage);
    CHECK(removals.size() == 8);
    CHECK(std::any_of(removals.begin(), removals.end(), [](const auto& r) { return r.row == kFar; }));
    const auto found = find_leverages(chain, 0, *source, removals, queries, Measurement::kLoss, 10, 3);
    REQUIRE(found.size() == 1);
    const auto& far = found.front();
    CHECK(far.removal.row == kFar);
    CHECK_FALSE(far.from_below);
    CHECK(far.leverage == doctest::Approx(leverage).epsilon(1e-9));
    const double actual = refitted_change(chain[0], kFar, queries)[far.removal.query].item<double>();
    MESSAGE("leverage ", leverage, ": first order ", far.removal.change, ", second ", far.second_order, ", refitted ",
            actual);
    CHECK(far.second_order == doctest::Approx(actual).epsilon(1e-9));
    CHECK(std::abs(far.removal.change - actual) > std::abs(actual) / 2);
  }
}

TEST_CASE("a leverage from below is none too many, and one that costs more than it may is not looked for") {
  const Chain chain{fitted()};
  const auto source =
      create<Attributor>("influence")->prepare(chain, {create<Curvature>("gauss-newton"), create<Solver>("cg")});
  const auto row = at::tensor({kFar}, at::kLong);
  const auto exact = source->leave_out(0, row, 1, 1e3);
  REQUIRE(exact);
  CHECK_FALSE(exact->from_below);
  const auto below = source->leave_out(0, row, 1e3, 12.5);  // two products: one step of cg
  REQUIRE(below);
  CHECK(below->from_below);
  CHECK(below->leverages[0].item<double>() <= exact->leverages[0].item<double>() * (1 + 1e-12));
  CHECK(below->leverages[0].item<double>() > 0.5);
  CHECK_FALSE(source->leave_out(0, row, 1e3, 11));
}

TEST_CASE("--self knows the row that its own fit leans on; where no row does, nothing is said") {
  const std::shared_ptr<const Curvature> curvature = create<Curvature>("hessian");
  const std::shared_ptr<const Attributor> method = create<Attributor>("influence");
  const Chain leaning{fitted()}, damped{fitted(100)};
  const auto found = self_influence({leaning, 0, method, curvature, nullptr, {}, 8}, {}).leverages;
  REQUIRE(found.size() == 1);
  CHECK(found[0].removal.row == kFar);
  CHECK(found[0].removal.query == kFar);
  const auto own = leaning[0].objective.data().take(at::tensor({kFar}, at::kLong));
  CHECK(found[0].second_order == doctest::Approx(refitted_change(leaning[0], kFar, own).item<double>()).epsilon(1e-9));
  CHECK(self_influence({damped, 0, method, curvature, nullptr, {}, 8}, {}).leverages.empty());
}

TEST_SUITE_END();
