// What is particular to lanczos: any function of the curvature. And the spectrum, from the same recurrence.
#include "matrices.h"
#include "whence/solvers/spectrum.h"

using namespace whence;
using test::geometric;
using test::MatrixOperator;
using test::relative_error;
using test::solve;
using test::with_eigenvalues;

TEST_SUITE_BEGIN("solvers");

TEST_CASE("lanczos and direct equal the dense function of the curvature under every filter") {
  auto indefinite = geometric(3, 1e-2, 60);
  indefinite.front() = -1;
  indefinite.back() = -0.02;
  auto singular = geometric(3, 1e-2, 60);
  std::fill_n(singular.begin() + 10, 20, 0.0);
  struct Case {
    std::vector<double> eigenvalues;
    Filter filter;
  };
  const std::vector<Case> cases{
      {geometric(3, 1e-2, 60), {Inversion::kDamped, 0}},
      {singular, {Inversion::kDamped, 0.1}},
      {indefinite, {Inversion::kDamped, 1.1}},
      {indefinite, {Inversion::kFiltered, 0.3}},
      {singular, {Inversion::kPseudo}},
      {indefinite, {Inversion::kPseudo}},
      {singular, {Inversion::kSegment, 0, 2.0, 0}},
      {indefinite, {Inversion::kSegment, 0.1, 2.0, 0}},
      {singular, {Inversion::kSegment, 0, 2.0, 50}},
      {indefinite, {Inversion::kSegment, 0.1, 2.0, 50}},
      {indefinite, {Inversion::kMemory, 0, 2.0, 0}},
      {singular, {Inversion::kMemory, 0.1, 2.0, 50}},
  };
  const auto b = Random(2).normal({3, 60});
  for (const auto& [eigenvalues, filter] : cases) {
    CAPTURE(to_string(filter.inversion));
    CAPTURE(filter.steps);
    const auto matrix = with_eigenvalues(eigenvalues);
    const auto truth = test::filtered(matrix, filter, b);
    at::Tensor x;
    for (const auto& summary : solve("lanczos:relative-tolerance=1e-12", matrix, filter, b, x)) {
      CAPTURE(summary.message);
      CHECK(summary.iterations <= 60);
      CHECK(summary.relative_residual >= 0);
      CHECK(summary.relative_residual < 1e-9);
    }
    CHECK(relative_error(x, truth) < 1e-9);
    solve("direct", matrix, filter, b, x);
    CHECK(relative_error(x, truth) < 1e-9);
  }
}

TEST_CASE("lanczos stops when the answer does, long before the space is exhausted, and counts its products") {
  const auto matrix = with_eigenvalues(geometric(1, 1e-6, 400));
  const Filter filter{Inversion::kSegment, 0, 5.0, 0};
  const auto b = Random(2).normal({2, 400});
  at::Tensor x;
  for (const auto& summary : solve("lanczos:relative-tolerance=1e-8", matrix, filter, b, x)) {
    CHECK(summary.termination == Termination::kConverged);
    CHECK(summary.iterations < 40);
    CHECK(summary.products == summary.iterations);
  }
  CHECK(relative_error(x, test::filtered(matrix, filter, b)) < 1e-8);
  const auto cut = solve("lanczos:max-iterations=5", matrix, {Inversion::kDamped, 1e-6}, b, x).front();
  CHECK(cut.termination == Termination::kIterationLimit);
  CHECK(cut.iterations == 5);
  CHECK(cut.message.find("raise max-iterations or the damping") != std::string::npos);
}

TEST_CASE("lanczos in float32 says what rounding leaves") {
  const auto matrix = with_eigenvalues(geometric(1, 1e-4, 40)).to(at::kFloat);
  at::Tensor x;
  const auto summary =
      solve("lanczos:relative-tolerance=1e-9", matrix, {}, Random(1).normal({1, 40}).to(at::kFloat), x);
  CAPTURE(summary.front().message);
  CHECK(summary.front().termination == Termination::kIterationLimit);
  CHECK(summary.front().message.find("rounding leaves a residual") != std::string::npos);
}

TEST_CASE("solvers that only invert refuse the functions that do not, and name those that take them") {
  at::Tensor x;
  for (const char* spec : {"cg", "lissa"}) {
    CHECK_THROWS_WITH_AS(solve(spec, at::eye(3, at::kDouble), {Inversion::kSegment, 0, 1, 0}, at::ones({1, 3}), x),
                         doctest::Contains("direct, lanczos or ekfac"), InvalidArgument);
  }
}

TEST_CASE("the spectrum's ends, mean and density, from a few products") {
  auto eigenvalues = geometric(10, 1, 20);
  eigenvalues.resize(300, 0.1);
  eigenvalues.back() = -2;
  const auto matrix = with_eigenvalues(eigenvalues);
  const MatrixOperator a(matrix);
  const auto spectrum = estimate_spectrum(a, 8, 40, Random(1));
  CHECK(a.products() <= 8 * 40);
  CHECK(spectrum.smallest == doctest::Approx(-2).epsilon(1e-6));
  CHECK(spectrum.largest == doctest::Approx(10).epsilon(1e-6));
  CHECK(spectrum.smallest_error < 1e-4);
  CHECK(spectrum.largest_error < 1e-4);
  const double trace = matrix.trace().item<double>();
  CHECK(std::abs(spectrum.trace - trace) < 4 * 300 * spectrum.mean_error);
  CHECK(spectrum.trace == doctest::Approx(trace).epsilon(0.2));
  CHECK(std::abs(spectrum.fraction_below(0.5) - 280.0 / 300) < 0.03);
  CHECK(spectrum.fraction_below(-3) == 0);
  CHECK(spectrum.fraction_below(11) == doctest::Approx(1));
  CHECK(std::is_sorted(spectrum.nodes.begin(), spectrum.nodes.end()));
  const auto again = estimate_spectrum(a, 8, 40, Random(1));
  CHECK(again.nodes == spectrum.nodes);
  CHECK_THROWS_WITH_AS(estimate_spectrum(a, 0, 40, Random(1)), doctest::Contains("0 probes of 40 steps"),
                       InvalidArgument);
}

TEST_CASE("the spectrum of one probe and one step is its Rayleigh quotient, with a bound that holds") {
  const auto matrix = with_eigenvalues({1, 2, 3, 4});
  const auto spectrum = estimate_spectrum(MatrixOperator(matrix), 1, 1, Random(1));
  CHECK(spectrum.nodes.size() == 1);
  CHECK(spectrum.smallest == spectrum.largest);
  CHECK(spectrum.mean == spectrum.smallest);
  double nearest = INFINITY;
  for (const double h : {1., 2., 3., 4.}) {
    nearest = std::min(nearest, std::abs(h - spectrum.smallest));
  }
  CHECK(nearest <= spectrum.smallest_error);
  CHECK(spectrum.mean_error == 0);
}

TEST_SUITE_END();
