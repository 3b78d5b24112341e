// What is particular to the solvers that keep a low-rank part of the curvature: nystroem, arnoldi, and identity.
#include "matrices.h"
#include "whence/solvers/detail/low_rank.h"

using namespace whence;
using test::geometric;
using test::inverse_of;
using test::MatrixOperator;
using test::relative_error;
using test::solve;
using test::with_eigenvalues;

namespace {

/// Ten eigenvalues over a floor of nothing: what both approximations are made for.
at::Tensor low_rank_matrix() {
  auto eigenvalues = geometric(10, 1, 10);
  eigenvalues.resize(80, 0);
  return with_eigenvalues(eigenvalues);
}

}  // namespace

TEST_SUITE_BEGIN("solvers");

TEST_CASE("nystroem and arnoldi are exact on a matrix of their rank, and cost their rank once") {
  const auto matrix = low_rank_matrix();
  const auto b = Random(1).normal({4, 80});
  const Filter filter{Inversion::kDamped, 0.1};
  for (const char* spec : {"nystroem:rank=20", "arnoldi:rank=10,eigenvalue-tolerance=1e-10"}) {
    CAPTURE(spec);
    const auto a = std::make_shared<MatrixOperator>(matrix);
    const auto solver = create<Solver>(spec);
    const auto inverse = solver->prepare({a, filter});
    const double once = a->products();
    CHECK(once <= 60);
    at::Tensor x;
    for (const auto& summary : test::applied(*inverse, b, x)) {
      CAPTURE(summary.message);
      CHECK(summary.termination == Termination::kConverged);
      CHECK(summary.products == 1);
      CHECK(summary.largest_ritz == doctest::Approx(10.1));
    }
    CHECK(a->products() == once + 4);
    CHECK(relative_error(x, test::filtered(matrix, filter, b)) < 1e-9);
  }
}

TEST_CASE("nystroem and arnoldi of too low a rank say what residual they leave, and are no further off than that") {
  const auto matrix = with_eigenvalues(geometric(10, 1e-3, 80));
  const auto b = Random(1).normal({2, 80});
  const Filter filter{Inversion::kDamped, 0.1};
  for (const char* spec : {"nystroem:rank=20", "arnoldi:rank=20", "arnoldi:rank=20,complement=false"}) {
    CAPTURE(spec);
    at::Tensor x;
    for (const auto& summary : solve(spec, matrix, filter, b, x)) {
      CAPTURE(summary.message);
      CHECK(summary.termination == Termination::kIterationLimit);
      CHECK(summary.relative_residual > 1e-3);
      CHECK(summary.message.find("leaves a residual of") != std::string::npos);
    }
  }
}

TEST_CASE("arnoldi's complement brings back the directions that the paper's inverse drops") {
  const auto matrix = low_rank_matrix();
  const auto b = Random(1).normal({2, 80});
  const Filter filter{Inversion::kDamped, 0.1};
  const auto truth = test::filtered(matrix, filter, b);
  at::Tensor with, without;
  solve("arnoldi:rank=10", matrix, filter, b, with);
  solve("arnoldi:rank=10,complement=false", matrix, filter, b, without);
  CHECK(relative_error(with, truth) < 1e-3);
  CHECK(relative_error(without, truth) > 0.9);
}

TEST_CASE("arnoldi finds eigenvalues of either sign and says how many it found") {
  const auto matrix = with_eigenvalues({-9, -4, 7, 5, 0.1, 0.2, 0.3, -0.1, 0.05, 0.02});
  const auto b = Random(1).normal({2, 10});
  const Filter filter{Inversion::kFiltered, 0.5};
  at::Tensor x;
  const auto summary = solve("arnoldi:rank=4,eigenvalue-tolerance=1e-9", matrix, filter, b, x).front();
  CHECK(summary.smallest_ritz == doctest::Approx(-9));
  CHECK(summary.largest_ritz == doctest::Approx(7));
  const auto few = solve("arnoldi:rank=40,iterations=45", with_eigenvalues(geometric(1, 0.5, 100)),
                         {Inversion::kDamped, 1}, Random(1).normal({1, 100}), x)
                       .front();
  CAPTURE(few.message);
  CHECK(few.message.find("of 40 eigenpairs asked for, the others were not found") != std::string::npos);
}

TEST_CASE("nystroem refuses no damping, arnoldi none outside its span; nystroem names a curvature that is indefinite") {
  at::Tensor x;
  const auto b = at::ones({1, 80}, at::kDouble);
  CHECK_THROWS_WITH_AS(solve("nystroem", low_rank_matrix(), {}, b, x),
                       doctest::Contains("nystroem: damping = 0, expected > 0"), InvalidArgument);
  CHECK_THROWS_WITH_AS(solve("arnoldi", low_rank_matrix(), {}, b, x),
                       doctest::Contains("arnoldi: damping = 0, expected > 0"), InvalidArgument);
  const auto summary =
      solve("nystroem", low_rank_matrix() - 2 * at::eye(80, at::kDouble), {Inversion::kDamped, 3}, b, x);
  CHECK(summary.front().termination == Termination::kIndefinite);
  CHECK(summary.front().message.find("positive semidefinite") != std::string::npos);
  CHECK(x.abs().max().item<double>() == 0);
}

TEST_CASE("nystroem names a curvature that is negative everywhere, and one whose entries are too large to square") {
  const auto b = Random(1).normal({1, 6});
  at::Tensor x;
  const auto summary =
      solve("nystroem:rank=3", -at::eye(6, at::kDouble), {.inversion = Inversion::kDamped, .damping = 0.1}, b, x);
  CHECK(summary.front().termination == Termination::kIndefinite);
  CHECK(x.isfinite().all().item<bool>());
  CHECK_THROWS_WITH_AS(solve("nystroem:rank=3", 1e200 * at::eye(6, at::kDouble),
                             {.inversion = Inversion::kDamped, .damping = 0.1}, b, x),
                       doctest::Contains("too large to be squared"), NumericalError);
}

TEST_CASE("the nystroem sketch has orthonormal vectors, and eigenvalues from below") {
  const auto eigenvalues = geometric(100, 1e-4, 60);
  for (const auto type : {at::kDouble, at::kFloat}) {
    CAPTURE(type);
    const auto part =
        whence::detail::nystroem_approximation(MatrixOperator(with_eigenvalues(eigenvalues).to(type)), 25, Random(3));
    const auto n = part.vectors.size(0);
    CHECK(n == part.values.size());
    const auto gram = part.vectors.mm(part.vectors.t());
    CHECK(relative_error(gram, at::eye(n, gram.options())) < (type == at::kDouble ? 1e-9 : 1e-2));
    for (Eigen::Index j = 0; j < 5; ++j) {
      CHECK(part.values[j] <= eigenvalues[static_cast<std::size_t>(j)] * (1 + 1e-5));
      CHECK(part.values[j] >= eigenvalues[static_cast<std::size_t>(j)] * 0.8);
    }
  }
}

TEST_CASE("identity returns the right-hand side, says so and costs nothing") {
  const auto a = std::make_shared<MatrixOperator>(low_rank_matrix());
  const auto b = Random(1).normal({2, 80});
  at::Tensor x;
  const auto solver = create<Solver>("identity");
  const auto summary = solver->prepare({a})->apply(b, x, {}).front();
  CHECK(at::equal(x, b));
  CHECK(summary.termination == Termination::kApproximate);
  CHECK(summary.relative_residual == -1);
  CHECK(summary.message == "the curvature is replaced by the identity");
  CHECK(a->products() == 0);
}

TEST_SUITE_END();
