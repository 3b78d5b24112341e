// What is particular to the Neumann series.
#include "matrices.h"

using namespace whence;
using test::geometric;
using test::inverse_of;
using test::MatrixOperator;
using test::relative_error;
using test::solve;
using test::with_eigenvalues;

namespace {

/// Rank-one parts g g', whose mean has a top eigenvalue far below their own: what examples are like.
at::Tensor outer_products(std::int64_t count, std::int64_t size, std::uint64_t seed) {
  const auto scales = at::logspace(0, -0.8, size, 10.0, at::kDouble);
  const auto g = Random(seed).normal({count, size}) * scales;
  return g.unsqueeze(2) * g.unsqueeze(1);
}

}  // namespace

TEST_SUITE_BEGIN("solvers");

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
  const auto summary = solve("lissa", matrix, {}, b, x).front();
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

TEST_CASE("lissa with no options converges on eigenvalues from 10 to 5500") {
  const auto matrix = with_eigenvalues(geometric(10, 5500, 30));
  const auto b = Random(4).normal({2, 30});
  at::Tensor x;
  for (const auto& summary : solve("lissa", matrix, {}, b, x)) {
    CAPTURE(summary.message);
    CHECK(summary.termination == Termination::kConverged);
    CHECK(summary.largest_ritz == doctest::Approx(5500).epsilon(0.01));
  }
  CHECK(relative_error(x, inverse_of(matrix, b)) < 1e-4);
}

TEST_CASE("lissa that runs out of terms says which bound came first, how many it would take, and what helps") {
  const auto matrix = with_eigenvalues(geometric(1e-3, 1e3, 30));
  at::Tensor x;
  const auto summary = solve("lissa:max-depth=500", matrix, {}, Random(4).normal({1, 30}), x).front();
  CHECK(summary.termination == Termination::kIterationLimit);
  CHECK(summary.iterations == 500);
  CHECK(summary.message.starts_with("max-depth = 500 terms"));
  CHECK(summary.message.find("preconditioner=ekfac or cg") != std::string::npos);
}

TEST_CASE("lissa that stalls says whether that is rounding or a small eigenvalue") {
  at::Tensor x;
  const auto b = Random(4).normal({1, 3});
  const auto slow = solve("lissa", with_eigenvalues({1, 0.5, 1e-8}), {}, b, x).front();
  CAPTURE(slow.message);
  CHECK(slow.termination == Termination::kIterationLimit);
  CHECK(slow.iterations < 2000);
  CHECK(slow.message.starts_with("the residual falls too slowly"));
  CHECK(slow.message.find("would be needed: use preconditioner=ekfac or cg") != std::string::npos);
  const auto rounded =
      solve("lissa:relative-tolerance=1e-12", with_eigenvalues({1, 0.5, 0.1}).to(at::kFloat), {}, b.to(at::kFloat), x)
          .front();
  CAPTURE(rounded.message);
  CHECK(rounded.message.starts_with("the residual no longer falls"));
  CHECK(rounded.message.find("--dtype float64") != std::string::npos);
}

TEST_CASE("a sampled lissa draws a batch large enough by itself, where a batch of one diverges") {
  const auto parts = outer_products(400, 20, 5);
  const auto mean = parts.mean(0);
  const Filter filter{Inversion::kDamped, 0.05};
  const auto b = Random(4).normal({1, 20});
  const auto truth = inverse_of(mean + 0.05 * at::eye(20, at::kDouble), b);
  const auto run = [&](const char* spec, at::Tensor& x) {
    const auto solver = create<Solver>(spec);
    return solver->prepare({std::make_shared<MatrixOperator>(mean, parts), filter})->apply(b, x, {}).front();
  };
  at::Tensor x, rough;
  const auto one = run("lissa:batch-size=1", x);
  CAPTURE(one.message);
  CHECK(one.termination == Termination::kDiverged);
  CHECK(one.message.find("raise batch-size") != std::string::npos);
  const auto automatic = run("lissa:sampled=true", x);
  CAPTURE(automatic.message);
  CHECK(automatic.termination == Termination::kIterationLimit);  // the noise is far above 1e-6 |b|, and it says so
  CHECK(automatic.message.find("noise") != std::string::npos);
  run("lissa:sampled=true,average=false", rough);
  const double error = relative_error(x, truth), rough_error = relative_error(rough, truth);
  MESSAGE("automatic batch: error " << error << " averaged, " << rough_error << " not; " << automatic.message);
  CHECK(error < 0.2);
  CHECK(error < rough_error);
}

TEST_CASE("lissa's first preconditioned step is the preconditioner's answer, and later steps remove its error") {
  const auto matrix = with_eigenvalues(geometric(1e-2, 1e3, 40));
  const auto b = Random(4).normal({2, 40});
  const Filter filter{Inversion::kDamped, 1e-2};
  at::Tensor x, sketched;
  const auto plain = solve("lissa", matrix, filter, b, x).front();
  CHECK(plain.termination == Termination::kIterationLimit);
  const auto summary = solve("lissa:preconditioner=nystroem,rank=30", matrix, filter, b, x).front();
  CAPTURE(summary.message);
  CHECK(summary.termination == Termination::kConverged);
  CHECK(summary.iterations < 1000);
  CHECK(relative_error(x, inverse_of(matrix + 1e-2 * at::eye(40, at::kDouble), b)) < 1e-4);
  MESSAGE("preconditioned lissa: " << summary.iterations << " terms");
  solve("lissa:preconditioner=nystroem,rank=40,depth=1", matrix, filter, b, x);
  solve("nystroem:rank=40", matrix, filter, b, sketched);
  CHECK(relative_error(x, sketched) < 1e-4);
}

TEST_SUITE_END();
