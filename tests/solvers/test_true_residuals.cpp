// What a solver says of itself: residuals that are those of its answer, terminations that go by them, and rounding
// called rounding.
#include "matrices.h"
#include "support/toy_chain.h"
#include "whence/curvature/spectral_operator.h"

using namespace whence;
using test::geometric;
using test::MatrixOperator;
using test::relative_error;
using test::solve;
using test::with_eigenvalues;

TEST_SUITE_BEGIN("solvers");

TEST_CASE("a segment's filter keeps the digits of small eigenvalues in float32") {
  // (1 - (1 - t/n h)^n) / h, summed without cancellation: t (1 + q + q^2 + ...) / n with q = 1 - t/n h
  const auto truth = [](double h, double t, int n) {
    double sum = 0, power = 1;
    for (int i = 0; i < n; ++i) {
      sum += power;
      power *= 1 - t / n * h;
    }
    return std::pair{t / n * sum, power};
  };
  for (const double h : {0.0, 1e-12, 1e-6, 3e-4, 0.5, 0.9, 1.0, 1.5, 1.9}) {
    for (const int n : {1, 7, 20}) {
      CAPTURE(h);
      CAPTURE(n);
      const double t = n;  // learning rate 1
      const auto [response, memory] = truth(static_cast<double>(static_cast<float>(h)), t, n);
      for (const auto type : {at::kFloat, at::kDouble}) {
        const auto values = at::full({2}, h, type);
        const double tolerance = type == at::kFloat ? 1e-6 : 1e-12;
        const auto exact = type == at::kFloat ? std::pair{response, memory} : truth(h, t, n);
        CHECK(Filter{Inversion::kSegment, 0, t, n}(values)[0].item<double>() ==
              doctest::Approx(exact.first).epsilon(tolerance));
        CHECK(std::abs(Filter{Inversion::kMemory, 0, t, n}(values)[0].item<double>() - exact.second) < tolerance);
      }
    }
  }
  // infinitely many steps: (1 - exp(-t h)) / h
  CHECK(Filter{Inversion::kSegment, 0, 20, 0}(at::full({1}, 1e-6, at::kFloat)).item<double>() ==
        doctest::Approx(-std::expm1(-2e-5) / 1e-6).epsilon(1e-6));
  CHECK(Filter{Inversion::kSegment, 0, 20, 20}(at::full({1}, 1e-6, at::kFloat)).item<double>() ==
        doctest::Approx(20).epsilon(1e-4));  // it was 0
}

TEST_CASE("a segment has forgotten its start where its steps, as the filter has them, would have grown without end") {
  const auto values = at::tensor({2.0001, 3.0, 1e4}, at::kDouble);  // |1 - h|^5000 is beyond what numbers hold
  CHECK(relative_error(Filter{Inversion::kSegment, 0, 5000, 5000}(values), 1 / values) < test::Tolerance::kSameAlgebra);
  CHECK(Filter{Inversion::kMemory, 0, 5000, 5000}(values).abs().max().item<double>() == 0);
}

TEST_CASE("segment through ekfac and diagonal in float32 is what it is in float64") {
  auto stage = test::toy_chain({{.tuning = "full", .loss = "cross-entropy", .weight_decay = 1e-7}})[0];
  stage.objective = stage.objective.with_weights(at::full({12}, 1e-6, at::kDouble));
  const auto b = Random(3).normal({2, count_entries(stage.theta)});
  TensorList narrow;
  for (const auto& value : stage.theta) {
    narrow.push_back(value.to(at::kFloat));
  }
  for (const char* name : {"ekfac", "diagonal"}) {
    CAPTURE(name);
    const auto answer = [&](const Objective& objective, const TensorList& theta, at::ScalarType type) {
      const auto a = create<Curvature>(name)->operator_at({objective, theta, {}});
      at::Tensor x;
      const auto solver = create<Solver>("ekfac");
      solver->prepare({a, {Inversion::kSegment, 0, 20, 20}})->apply(b.to(type), x, {});
      return x;
    };
    const auto wide = answer(stage.objective, stage.theta, at::kDouble);
    CHECK(relative_error(wide, 20 * b) < 1e-3);  // nothing has converged in 20 steps
    CHECK(relative_error(answer(stage.objective.to(at::kFloat), narrow, at::kFloat), wide) < test::Tolerance::kFloat);
  }
}

TEST_CASE("cg that spent its iterations tells b - A x, not what its recurrence came to") {
  const auto matrix = with_eigenvalues(geometric(1, 1e-6, 40)).to(at::kFloat);
  const auto b = Random(1).normal({1, 40}).to(at::kFloat);
  at::Tensor x;
  const auto summary =
      solve("cg:max-iterations=150,relative-tolerance=1e-12,residual-period=1000", matrix, {}, b, x).front();
  const double truth = (b - x.mm(matrix)).norm().item<double>() / b.norm().item<double>();
  CHECK(summary.termination == Termination::kIterationLimit);
  CHECK(summary.relative_residual == doctest::Approx(truth).epsilon(1e-3));
  CHECK(summary.relative_residual > 1e-6);
}

TEST_CASE("no progress line calls a solve solved that is not") {
  auto eigenvalues = geometric(1, 1e-2, 30);
  eigenvalues.back() = -1e-2;
  const auto solver = create<Solver>("cg:relative-tolerance=1e-10");
  const auto inverse = solver->prepare({std::make_shared<MatrixOperator>(with_eigenvalues(eigenvalues))});
  at::Tensor x;
  std::vector<std::string> lines;
  inverse->apply(Random(1).normal({1, 30}), x, [&](const ProgressEvent& event) { lines.push_back(event.detail); });
  REQUIRE(lines.size() > 2);
  CHECK(lines.front() == "0 of 1 solved, largest residual 1.0e+00");
  for (const auto& line : lines) {
    CHECK(line.find("1 of 1 solved") == std::string::npos);
    CHECK(line.find("0.0e+00") == std::string::npos);
  }
}

TEST_CASE("an eigenvalue that rounding made negative is called rounding, with what to type") {
  auto eigenvalues = geometric(1, 1e-3, 38);
  eigenvalues.push_back(0);
  eigenvalues.push_back(-2e-8);  // what float32 leaves of a zero
  const auto matrix = with_eigenvalues(eigenvalues).to(at::kFloat);
  const auto b = Random(1).normal({1, 40}).to(at::kFloat);
  for (const char* spec : {"cg", "lanczos", "direct", "arnoldi:rank=40"}) {
    CAPTURE(spec);
    at::Tensor x;
    const auto summary = solve(spec, matrix, {}, b, x).front();
    CAPTURE(summary.message);
    CHECK(summary.termination == Termination::kIterationLimit);
    CHECK(summary.message.find("--dtype float64") != std::string::npos);
    CHECK(at::isfinite(x).all().item<bool>());
    // in float64 the same matrix is indefinite indeed
    CHECK(solve(spec, with_eigenvalues(eigenvalues), {}, b.to(at::kDouble), x).front().termination ==
          Termination::kIndefinite);
  }
}

TEST_CASE("direct gives no root of an inverse from which rounding took eigenvalues") {
  auto eigenvalues = geometric(1, 1e-3, 38);
  const auto root = [](const at::Tensor& matrix) {
    const auto direct = create<Solver>("direct");
    return direct->prepare({std::make_shared<MatrixOperator>(matrix)})->root().rows;
  };
  CHECK(root(with_eigenvalues(eigenvalues).to(at::kFloat)).defined());
  eigenvalues.push_back(-2e-8);
  CHECK_FALSE(root(with_eigenvalues(eigenvalues).to(at::kFloat)).defined());
  CHECK_FALSE(root(with_eigenvalues(eigenvalues)).defined());
}

TEST_CASE("a pseudo-inverse leaves out what float32 made of zeros") {
  auto eigenvalues = geometric(1, 1e-2, 20);
  eigenvalues.resize(40, 0);
  const auto exact = with_eigenvalues(eigenvalues);
  const auto b = Random(1).normal({2, 40});
  const auto expected = test::filtered(exact, {Inversion::kPseudo}, b);
  for (const char* spec : {"direct", "lanczos", "arnoldi:rank=40"}) {
    CAPTURE(spec);
    at::Tensor x;
    solve(spec, exact.to(at::kFloat), {Inversion::kPseudo}, b.to(at::kFloat), x);
    CHECK(relative_error(x, expected) < 1e-3);
  }
}

TEST_CASE("direct has converged where its own residual says so") {
  const auto matrix = with_eigenvalues(geometric(1, 1e-5, 30)).to(at::kFloat);
  const auto b = Random(1).normal({1, 30}).to(at::kFloat);
  at::Tensor x;
  const auto loose = solve("direct", matrix, {}, b, x).front();
  const double truth = (b - x.mm(matrix)).norm().item<double>() / b.norm().item<double>();
  CHECK(loose.relative_residual == doctest::Approx(truth).epsilon(1e-2));
  const auto strict = solve("direct:relative-tolerance=1e-9", matrix, {}, b, x).front();
  CHECK(strict.termination == Termination::kIterationLimit);
  CHECK(strict.message.find("rounding leaves a residual of") != std::string::npos);
  CHECK(solve("direct:relative-tolerance=1e-9", matrix.to(at::kDouble), {}, b.to(at::kDouble), x).front().termination ==
        Termination::kConverged);
}

TEST_CASE("the mean eigenvalue is exact where eigenvalues or rows are at hand, whatever the probes") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  for (const char* name : {"ekfac", "kfac", "diagonal", "gauss-newton", "empirical-fisher"}) {
    CAPTURE(name);
    const auto a = create<Curvature>(name)->operator_at({stage.objective, stage.theta, {}});
    const auto dense = a->apply(at::eye(a->size(), at::kDouble));
    CHECK(mean_eigenvalue(*a, 1, Random(0)) ==
          doctest::Approx(dense.diagonal().mean().item<double>()).epsilon(test::Tolerance::kDense));
  }
  // by probes, drawn in pieces: the same numbers as in one
  const auto hessian = create<Curvature>("hessian")->operator_at({stage.objective, stage.theta, {}});
  auto draws = Random(5);
  const auto signs = draws.uniform({3, hessian->size()}, -1, 1).sign();
  const double expected =
      row_dots(signs, hessian->apply(signs)).mean().item<double>() / static_cast<double>(hessian->size());
  CHECK(mean_eigenvalue(*hessian, 3, Random(5)) == doctest::Approx(expected).epsilon(test::Tolerance::kSameAlgebra));
}

TEST_SUITE_END();
