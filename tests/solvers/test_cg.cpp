// What is particular to block conjugate gradients.
#include "matrices.h"
#include "whence/evaluate/statistics.h"
#include "whence/solvers/detail/blocks.h"
#include "whence/stages/choice.h"

using namespace whence;
using test::geometric;
using test::inverse_of;
using test::MatrixOperator;
using test::relative_error;
using test::solve;
using test::with_eigenvalues;

TEST_SUITE_BEGIN("solvers");

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

TEST_CASE("at the tolerance of rankings, cg ranks by an ill-conditioned curvature as its inverse does") {
  const int count = 420;  // more than auto factors
  for (const double condition : {1e2, 1e5, 1e7}) {
    CAPTURE(condition);
    // Gradients whose covariance is the curvature, as those of examples are: each direction has its part in a score.
    const auto curvature = with_eigenvalues(geometric(1, 1 / condition, count));
    const auto root = with_eigenvalues(geometric(1, 1 / std::sqrt(condition), count));
    const auto examples = Random(2).normal({600, count}).mm(root), queries = Random(3).normal({6, count}).mm(root);
    const auto exact = inverse_of(curvature, queries).mm(examples.t());
    at::Tensor x;
    const auto summaries =
        solve(fmt::format("auto:relative-tolerance={:g}", kRankingTolerance), curvature, {}, queries, x);
    const auto scores = x.mm(examples.t());
    for (std::int64_t q = 0; q < queries.size(0); ++q) {
      const auto& summary = summaries[static_cast<std::size_t>(q)];
      CAPTURE(summary.message);
      CHECK(summary.termination == Termination::kConverged);
      CHECK(summary.relative_residual <= kRankingTolerance);
      CHECK(summary.energy_growth <= kRankingTolerance);
      CHECK(summary.energy_growth > 0);
      const auto numbers = [&](const at::Tensor& row) {
        return std::vector<double>(row.const_data_ptr<double>(), row.const_data_ptr<double>() + row.numel());
      };
      CHECK(spearman(numbers(scores[q]), numbers(exact[q])) > 0.99);
      const double missing =
          1 - (queries[q].dot(x[q]) / queries[q].dot(inverse_of(curvature, queries)[q])).item<double>();
      CHECK(missing < 2 * kRankingTolerance);
    }
  }
}

TEST_CASE("a small residual is not enough for cg where it leaves out half of the answer's energy") {
  const auto matrix = at::diag(at::tensor({1.0, 1e-4}, at::kDouble));
  const auto b = at::tensor({1.0, 9e-3}, at::kDouble).unsqueeze(0);  // x = (1, 90): energies 1 and .81
  at::Tensor x;
  const auto cut = solve("cg:relative-tolerance=0.01,max-iterations=1", matrix, {}, b, x).front();
  CAPTURE(cut.message);
  CHECK(cut.termination == Termination::kIterationLimit);
  CHECK(cut.relative_residual < 0.01);
  CHECK(cut.energy_growth == 1);
  CHECK(cut.message.find("the residual is small, but the last quarter of the iterations added") != std::string::npos);
  const auto whole = solve("cg:relative-tolerance=0.01", matrix, {}, b, x).front();
  CHECK(whole.termination == Termination::kConverged);
  CHECK(whole.iterations == 2);
  CHECK(relative_error(x, at::tensor({1.0, 90.0}, at::kDouble).unsqueeze(0)) < 1e-9);
  CHECK(whole.energy_growth == doctest::Approx(0.81 / 1.81).epsilon(1e-3));
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
  const auto matrix = with_eigenvalues(geometric(1, 1e-6, 40)).to(at::kFloat);
  at::Tensor x;
  const auto summary = solve("cg:max-iterations=100000,relative-tolerance=1e-12", matrix, {},
                             Random(1).normal({1, 40}).to(at::kFloat), x)
                           .front();
  CHECK(summary.termination == Termination::kIterationLimit);
  CHECK(summary.iterations < 5000);
  CHECK(summary.message.starts_with("the residual no longer falls"));
  CHECK(at::isfinite(x).all().item<bool>());
}

TEST_CASE("cg's right-hand sides share a Krylov space: a block needs fewer products than its rows apart") {
  const auto matrix = with_eigenvalues(geometric(1, 1e-5, 200));
  const auto b = Random(1).normal({20, 200});
  const auto a = std::make_shared<MatrixOperator>(matrix);
  const auto solver = create<Solver>("cg:relative-tolerance=1e-8,max-iterations=5000");
  const auto inverse = solver->prepare({a});
  at::Tensor together, alone;
  const auto summaries = inverse->apply(b, together, {});
  const double block = a->products();
  double apart = 0;
  for (std::int64_t k = 0; k < b.size(0); ++k) {
    const auto summary = inverse->apply(b.narrow(0, k, 1), alone, {}).front();
    CHECK(summary.termination == Termination::kConverged);
    apart += summary.products;
    CHECK(relative_error(alone[0], together[k]) < 1e-2);  // each leaves a residual of 1e-8 |b|, times the condition
  }
  for (const auto& summary : summaries) {
    CAPTURE(summary.message);
    CHECK(summary.termination == Termination::kConverged);
    CHECK(summary.relative_residual <= 1e-8);
    CHECK(summary.products == doctest::Approx(block / 20));
    CHECK(summary.smallest_ritz >= 0.99e-5);
    CHECK(summary.largest_ritz <= 1.01);
    CHECK(summary.smallest_ritz < 1e-3);
    CHECK(summary.largest_ritz > 0.1);
  }
  MESSAGE("block " << block << " products, apart " << apart);
  CHECK(block < 0.05 * apart);
}

TEST_CASE("cg with the nystroem preconditioner needs fewer products, the sketch's included") {
  auto eigenvalues = geometric(1e4, 1e-2, 100);
  eigenvalues.resize(400, 1e-2);
  const auto matrix = with_eigenvalues(eigenvalues);
  const auto b = Random(1).normal({4, 400});
  const auto products = [&](const char* spec) {
    const auto a = std::make_shared<MatrixOperator>(matrix);
    at::Tensor x;
    const auto solver = create<Solver>(spec);
    for (const auto& summary : test::applied(*solver->prepare({a, {Inversion::kDamped, 1e-2}}), b, x)) {
      CAPTURE(summary.message);
      CHECK(summary.termination == Termination::kConverged);
    }
    CHECK(relative_error(x, inverse_of(matrix + 1e-2 * at::eye(400, at::kDouble), b)) < 1e-4);
    return a->products();
  };
  const double plain = products("cg"), preconditioned = products("cg:preconditioner=nystroem");
  MESSAGE("plain " << plain << " products, with nystroem " << preconditioned << ", of which 100 once");
  CHECK(preconditioned < 0.7 * plain);
}

TEST_CASE("cg under every preconditioned filter that has an answer") {
  const auto matrix = with_eigenvalues({-2, -1, 0.5, 1, 3, 40});
  const auto b = Random(1).normal({2, 6});
  for (const Filter& filter : {Filter{Inversion::kDamped, 3}, Filter{Inversion::kFiltered, 0.5}}) {
    at::Tensor x;
    for (const auto& summary :
         solve("cg:preconditioner=nystroem,rank=2,relative-tolerance=1e-12", matrix, filter, b, x)) {
      CHECK(summary.termination == Termination::kConverged);
    }
    CHECK(relative_error(x, test::filtered(matrix, filter, b)) < 1e-9);
  }
  at::Tensor x;
  CHECK_THROWS_WITH_AS(solve("cg:preconditioner=nystroem", matrix, {Inversion::kPseudo}, b, x),
                       doctest::Contains("use preconditioner none"), InvalidArgument);
  CHECK_THROWS_WITH_AS(solve("cg:preconditioner=ekfac", matrix, {Inversion::kDamped, 3}, b, x),
                       doctest::Contains("use nystroem"), InvalidArgument);
}

TEST_CASE("cg's block may hold duplicates, multiples, near-duplicates and zeros, in both precisions") {
  const auto matrix = with_eigenvalues(geometric(1, 1e-3, 60));
  auto b = Random(1).normal({8, 60});
  b[1] = b[0];
  b[2] = -3e5 * b[0];
  b[3] = b[0] + 1e-7 * b[7];
  b[4].zero_();
  b[5] = b[6] - 2 * b[7];
  for (const auto type : {at::kDouble, at::kFloat}) {
    CAPTURE(type);
    const double tolerance = type == at::kDouble ? 1e-9 : 1e-4;
    at::Tensor x, again;
    const auto spec = fmt::format("cg:relative-tolerance={}", tolerance);
    const auto typed = matrix.to(type), right = b.to(type);
    for (const auto& summary : solve(spec, typed, {}, right, x)) {
      CAPTURE(summary.message);
      CHECK(summary.termination == Termination::kConverged);
      CHECK(summary.relative_residual <= tolerance);
    }
    CHECK(x[4].abs().max().item<double>() == 0);
    CHECK(relative_error(x, inverse_of(typed, right)) < 1e3 * tolerance);
    solve(spec, typed, {}, right, again);
    CHECK(at::equal(x, again));
  }
}

TEST_CASE("cg converges on random blocks of every shape, more right-hand sides than unknowns among them") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    auto draws = Random(seed);
    const auto pick = draws.uniform({3}, 0, 1);
    const int n = 2 + static_cast<int>(60 * pick[0].item<double>()),
              k = 1 + static_cast<int>(30 * pick[1].item<double>());
    const auto matrix = with_eigenvalues(geometric(1, std::pow(10, -6 * pick[2].item<double>()), n), seed);
    auto b = draws.normal({k, n});
    for (int i = 1; i < k; ++i) {
      if (i % 3 == 1) {
        b[i] = 2 * b[i - 1];
      } else if (i % 4 == 1) {
        b[i] = b[0] + std::pow(10, -i % 9) * b[i];
      } else if (i % 5 == 1) {
        b[i].mul_(1e-12);
      }
    }
    const auto* spec =
        seed % 2 == 0 ? "cg:relative-tolerance=1e-9" : "cg:relative-tolerance=1e-9,preconditioner=nystroem,rank=10";
    at::Tensor x;
    for (const auto& summary : solve(spec, matrix, {}, b, x)) {
      CAPTURE(summary.message);
      CHECK(summary.termination == Termination::kConverged);
      CHECK(summary.relative_residual <= 1e-9);
    }
  }
}

TEST_CASE("cg needs a tenth more iterations at most with right-hand sides that depend on others than without") {
  std::int64_t all_alone = 0, all_together = 0;
  for (const double smallest : {1e-3, 5e-5, 1e-6}) {
    CAPTURE(smallest);
    const auto matrix = with_eigenvalues(geometric(1, smallest, 57));
    const auto iterations = [&](const at::Tensor& right) {
      at::Tensor x;
      std::int64_t most = 0;
      for (const auto& summary : solve("cg:relative-tolerance=1e-9", matrix, {}, right, x)) {
        CAPTURE(summary.message);
        CHECK(summary.termination == Termination::kConverged);
        most = std::max(most, summary.iterations);
      }
      return most;
    };
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      CAPTURE(seed);
      const auto b = Random(seed).normal({2, 57});
      const auto first = b.narrow(0, 0, 1), second = b.narrow(0, 1, 1);
      const auto alone = iterations(b);
      const auto together = iterations(at::cat({b, 2 * first, first + second, first - second}));
      CHECK(alone > 50);  // true residuals are taken on the way
      CHECK(together <= 1.5 * static_cast<double>(alone));
      all_alone += alone;
      all_together += together;
      if (smallest > 1e-6) {  // but for a ten-millionth
        CHECK(iterations(at::cat({b, first + 1e-7 * Random(seed + 10).normal({1, 57})})) <= alone);
      }
    }
  }
  CHECK(static_cast<double>(all_together) <= 1.1 * static_cast<double>(all_alone));
}

TEST_CASE("cg spends products on active directions alone: a block of one vector's multiples costs one vector") {
  const auto a = std::make_shared<MatrixOperator>(with_eigenvalues(geometric(1, 0.1, 50)));
  const auto b = Random(1).normal({1, 50});
  at::Tensor x;
  const auto solver = create<Solver>("cg");
  const auto inverse = solver->prepare({a});
  const auto one = inverse->apply(b, x, {}).front();
  const auto four = inverse->apply(at::cat({b, 2 * b, -b, 1e-3 * b}), x, {}).front();
  CHECK(four.iterations == one.iterations);
  CHECK(4 * four.products == doctest::Approx(one.products + 3));  // each row's answer is checked by a product
}

TEST_CASE("cg stops a block at negative curvature, with the Rayleigh quotient and what it had") {
  auto eigenvalues = geometric(1, 1e-2, 30);
  eigenvalues.back() = -1e-4;
  at::Tensor x;
  for (const auto& summary :
       solve("cg:relative-tolerance=1e-10", with_eigenvalues(eigenvalues), {}, Random(1).normal({3, 30}), x)) {
    CAPTURE(summary.message);
    CHECK(summary.termination == Termination::kIndefinite);
    CHECK(summary.message.find("p'Ap / p'p = -") != std::string::npos);
    CHECK(summary.smallest_ritz < 0);
    CHECK(summary.smallest_ritz >= -1.01e-4);
  }
  CHECK(at::isfinite(x).all().item<bool>());
}

TEST_CASE("rows are factored into an orthonormal basis, without the directions that depend on others") {
  auto x = Random(1).normal({5, 40});
  x[1] = 1e-3 * x[0] - 1e-3 * x[4];
  x[2].zero_();
  const auto [basis, factors] = whence::detail::factor_rows(x, 1e-13);
  CHECK(basis.size(0) == 3);
  CHECK(relative_error(basis.mm(basis.t()), at::eye(3, at::kDouble)) < 1e-14);
  CHECK(relative_error(whence::detail::combine(factors, basis), x) < 1e-14);
  const auto many = whence::detail::factor_rows(Random(1).normal({9, 4}), 1e-13);  // more rows than entries
  CHECK(many.basis.size(0) == 4);
  CHECK(whence::detail::factor_rows(at::full({2, 4}, NAN, at::kDouble), 1e-13).basis.size(0) == 0);
}

TEST_SUITE_END();
