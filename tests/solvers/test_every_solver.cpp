// The contract that every registered solver keeps. A new solver is tested here by its registration line alone.
#include <cmath>

#include "support/near.h"
#include "whence/solvers/solver.h"

using namespace whence;
using test::relative_error;

namespace {

/// A symmetric matrix as an operator; sampled, it is the mean of its `parts`.
class MatrixOperator : public LinearOperator {
 public:
  explicit MatrixOperator(at::Tensor matrix, at::Tensor parts = {})
      : matrix_(std::move(matrix)), parts_(std::move(parts)) {}
  std::int64_t size() const override { return matrix_.size(0); }
  at::TensorOptions options() const override { return matrix_.options(); }

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override { return x.mm(matrix_); }
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    if (!parts_.defined()) {
      return LinearOperator::do_apply_sampled(x, batch_size, random);
    }
    const auto rows = random.uniform({batch_size}, 0, static_cast<double>(parts_.size(0))).floor().to(at::kLong);
    return x.mm(parts_.index_select(0, rows).mean(0));
  }

 private:
  at::Tensor matrix_, parts_;
};

/// Q diag(values) Q' with a random basis.
at::Tensor with_eigenvalues(const std::vector<double>& values, std::uint64_t seed = 1) {
  const auto n = static_cast<std::int64_t>(values.size());
  const auto basis = std::get<0>(at::linalg_qr(Random(seed).normal({n, n})));
  return basis.mm(at::diag(at::tensor(values, at::kDouble))).mm(basis.t());
}

std::vector<SolverSummary> solve(std::string_view spec, const at::Tensor& matrix, const Filter& filter,
                                 const at::Tensor& b, at::Tensor& x) {
  const auto solver = create<Solver>(spec);
  return solver->prepare({std::make_shared<MatrixOperator>(matrix), filter})->apply(b, x, {});
}

/// f(A) b with the filter applied to each eigenvalue.
at::Tensor filtered(const at::Tensor& matrix, const Filter& filter, const at::Tensor& b) {
  const auto [h, basis] = at::linalg_eigh(matrix);
  return b.mm(basis).mul(filter(h, 1e-10)).mm(basis.t());
}

}  // namespace

TEST_SUITE_BEGIN("solvers");

TEST_CASE("every solver inverts under every filter, each row as if alone, twice to the bit") {
  const std::vector<double> positive{0.5, 0.7, 1, 1.3, 2, 3}, indefinite{-1, -0.4, 0.6, 1, 2, 3},
      singular{0, 0, 0.5, 1, 2, 3};
  struct Case {
    std::vector<double> eigenvalues;
    Filter filter;
  };
  const std::vector<Case> cases{{positive, {Inversion::kDamped, 0}},     {positive, {Inversion::kDamped, 0.4}},
                                {indefinite, {Inversion::kDamped, 1.5}}, {indefinite, {Inversion::kFiltered, 0.5}},
                                {singular, {Inversion::kDamped, 0.3}},   {singular, {Inversion::kPseudo, 0}},
                                {indefinite, {Inversion::kPseudo, 0}}};
  for (const auto& method : methods<Solver>()) {
    for (const auto& [eigenvalues, filter] : cases) {
      CAPTURE(method.name);
      CAPTURE(to_string(filter.inversion));
      CAPTURE(filter.damping);
      const auto matrix = with_eigenvalues(eigenvalues);
      const auto b = Random(2).normal({3, 6});
      const auto spec = std::string(method.name) + (method.name == "direct" ? "" : ":relative-tolerance=1e-10");
      at::Tensor x, again, alone;
      const auto summaries = solve(spec, matrix, filter, b, x);
      REQUIRE(summaries.size() == 3);
      for (const auto& summary : summaries) {
        CAPTURE(summary.message);
        CHECK(summary.termination == Termination::kConverged);
        CHECK(summary.relative_residual >= 0);
        CHECK(summary.relative_residual < 1e-9);
        CHECK(summary.seconds >= 0);
      }
      CHECK(relative_error(x, filtered(matrix, filter, b)) < 1e-7);
      solve(spec, matrix, filter, b, again);
      CHECK(at::equal(x, again));
      solve(spec, matrix, filter, b.narrow(0, 1, 1), alone);
      CHECK(relative_error(alone, x.narrow(0, 1, 1)) < 1e-7);
    }
  }
}

TEST_CASE("every solver names an indefinite matrix and never returns a number that is not finite") {
  const auto matrix = with_eigenvalues({-0.5, 0.1, 1, 1.5, 2, 3});
  for (const auto& method : methods<Solver>()) {
    CAPTURE(method.name);
    at::Tensor x;
    for (const auto& summary : solve(method.name, matrix, {}, Random(2).normal({2, 6}), x)) {
      CAPTURE(summary.message);
      const auto expected = method.name == "lissa" ? Termination::kDiverged : Termination::kIndefinite;
      CHECK(summary.termination == expected);
    }
    CHECK(at::isfinite(x).all().item<bool>());
  }
}

TEST_CASE("every solver answers a zero right-hand side with zero beside one that is not") {
  const auto matrix = with_eigenvalues({0.5, 1, 2});
  auto b = at::zeros({2, 3}, at::kDouble);
  b[1].fill_(1);
  for (const auto& method : methods<Solver>()) {
    CAPTURE(method.name);
    at::Tensor x;
    const auto summaries = solve(method.name, matrix, {}, b, x);
    CHECK(summaries[0].termination == Termination::kConverged);
    CHECK(summaries[0].relative_residual == 0);
    CHECK(x[0].abs().max().item<double>() == 0);
    CHECK(relative_error(x[1], at::mv(at::linalg_inv(matrix), b[1])) < 1e-5);
  }
}

TEST_CASE("every solver refuses a negative damping, an unknown option by the nearest name, and values out of bound") {
  for (const auto& method : methods<Solver>()) {
    CAPTURE(method.name);
    at::Tensor x;
    CHECK_THROWS_WITH_AS(
        solve(method.name, at::eye(2, at::kDouble), {Inversion::kDamped, -1}, at::ones({1, 2}, at::kDouble), x),
        doctest::Contains("damping = -1, expected >= 0"), InvalidArgument);
    CHECK_THROWS_WITH_AS(create<Solver>(std::string(method.name) + ":nonsense=1"), doctest::Contains("known:"),
                         InvalidArgument);
  }
  CHECK_THROWS_WITH_AS(create<Solver>("cg:relative-tolerance=2"),
                       "cg: option relative-tolerance = 2, expected in [0, 1]", InvalidArgument);
  CHECK_THROWS_WITH_AS(create<Solver>("cgg"), doctest::Contains("did you mean \"cg\"?"), InvalidArgument);
}

TEST_CASE("cg that has converged stays converged: 5 unknowns, 2000 iterations, rows of very different ease") {
  const auto matrix = with_eigenvalues({1, 10, 100, 1e3, 1e4});
  auto b = Random(3).normal({4, 5});
  b[0] = matrix[0];  // the first row's solution is a unit vector
  b[1].mul_(1e-20);
  at::Tensor x;
  for (const auto& summary : solve("cg:max-iterations=2000,relative-tolerance=0", matrix, {}, b, x)) {
    CAPTURE(summary.message);
    CHECK(summary.relative_residual < 1e-10);
  }
  CHECK(relative_error(x, at::linalg_solve(matrix, b.t()).t()) < 1e-10);
}

TEST_CASE("cg spends at most max-iterations and says that it stopped") {
  const auto matrix = with_eigenvalues({1, 10, 100, 1e3, 1e4});
  const auto a = std::make_shared<MatrixOperator>(matrix);
  at::Tensor x;
  const auto summary =
      create<Solver>("cg:max-iterations=2")->prepare({a})->apply(at::ones({1, 5}, at::kDouble), x, {}).front();
  CHECK(summary.termination == Termination::kIterationLimit);
  CHECK(summary.iterations == 2);
  CHECK(a->products() <= 4);  // two steps, the first residual and one recomputed
}

TEST_CASE("cg in float32 stops where rounding stops it") {
  std::vector<double> eigenvalues;
  for (int i = 0; i < 40; ++i) {
    eigenvalues.push_back(std::pow(10, -6.0 * i / 39));
  }
  const auto matrix = with_eigenvalues(eigenvalues).to(at::kFloat);
  at::Tensor x;
  const auto summary = solve("cg:max-iterations=100000,relative-tolerance=1e-12", matrix, {},
                             Random(1).normal({1, 40}).to(at::kFloat), x)
                           .front();
  CHECK(summary.termination == Termination::kIterationLimit);
  CHECK(summary.iterations < 5000);
  CHECK(summary.message.starts_with("the residual no longer falls"));
  CHECK(at::isfinite(x).all().item<bool>());
}

TEST_CASE("lissa says that it diverged, with the numbers, and returns zero") {
  const auto matrix = with_eigenvalues({1, 100, 5500});
  at::Tensor x;
  const auto summary = solve("lissa:scale=50", matrix, {}, at::ones({1, 3}, at::kDouble), x).front();
  CHECK(summary.termination == Termination::kDiverged);
  CHECK(summary.message.find("scale 50") != std::string::npos);
  CHECK(summary.message.find("5.5e+03") != std::string::npos);
  CHECK(x.abs().max().item<double>() == 0);
}

TEST_CASE("lissa with no scale set converges on a top eigenvalue of 5500") {
  const auto matrix = with_eigenvalues({10, 100, 5500});
  at::Tensor x;
  const auto b = Random(4).normal({2, 3});
  const auto summary = solve("lissa:depth=20000", matrix, {}, b, x).front();
  CAPTURE(summary.message);
  CHECK(summary.termination == Termination::kConverged);
  CHECK(relative_error(x, at::linalg_solve(matrix, b.t()).t()) < 1e-4);
}

TEST_CASE("lissa's fixed point with batches is the inverse of the mean; repeats lower its noise") {
  const auto parts =
      at::stack({with_eigenvalues({1, 2, 3}, 1), with_eigenvalues({1, 2, 4}, 2), with_eigenvalues({2, 2, 3}, 3)});
  const auto mean = parts.mean(0);
  const auto b = Random(4).normal({1, 3});
  const auto truth = at::linalg_solve(mean, b.t()).t();
  const auto error = [&](const char* spec) {
    at::Tensor x;
    const auto solver = create<Solver>(spec);
    solver->prepare({std::make_shared<MatrixOperator>(mean, parts)})->apply(b, x, {});
    return relative_error(x, truth);
  };
  const double once = error("lissa:batch-size=2,depth=400,scale=40");
  const double often = error("lissa:batch-size=2,depth=400,scale=40,repeats=40");
  CHECK(once < 0.2);
  CHECK(often < 0.05);
  CHECK(often < once);
  CHECK(error("lissa:batch-size=2,depth=400,scale=40") == once);
}

TEST_CASE("direct refuses a matrix that is too large, with the size it would need") {
  class Large : public LinearOperator {
   public:
    std::int64_t size() const override { return 101770; }
    at::TensorOptions options() const override { return at::kDouble; }

   protected:
    at::Tensor do_apply(const at::Tensor& x) const override { return x; }
  };
  CHECK_THROWS_WITH_AS(create<Solver>("direct")->prepare({std::make_shared<Large>()}),
                       doctest::Contains("101770 parameters need 165.7 GB"), InvalidArgument);
}

TEST_CASE("a progress callback can stop a solve") {
  const auto matrix = with_eigenvalues({1, 10, 100, 1e3, 1e4});
  for (const char* spec : {"cg", "lissa"}) {
    at::Tensor x;
    const auto solver = create<Solver>(spec);
    const auto inverse = solver->prepare({std::make_shared<MatrixOperator>(matrix)});
    CHECK_THROWS_AS(inverse->apply(at::ones({1, 5}, at::kDouble), x, [](const ProgressEvent&) { throw Interrupted(); }),
                    Interrupted);
  }
}

TEST_SUITE_END();
