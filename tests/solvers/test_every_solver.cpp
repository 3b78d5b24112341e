// The contract that every registered solver keeps. A new solver is tested here by its registration line alone.
#include "matrices.h"

using namespace whence;
using test::filtered;
using test::MatrixOperator;
using test::relative_error;
using test::solve;
using test::with_eigenvalues;

namespace {

/// Whether it takes more of a stage than products; test_stage_solvers.cpp has those.
bool needs_stage(const Solver& solver) { return solver.needs().rows || solver.needs().point; }

bool solves_by_products(const Solver& solver) { return solver.is_exact() && !needs_stage(solver); }

/// Whether it says that it solves this.
bool takes(const Solver& solver, const std::vector<double>& eigenvalues, const Filter& filter) {
  const bool undamped = filter.inversion == Inversion::kDamped && filter.damping == 0;
  const auto size = static_cast<std::int64_t>(eigenvalues.size());
  return solves_by_products(solver) && !(solver.needs().semidefinite && eigenvalues.front() < 0) &&
         !(undamped && solver.needs_damping(size));
}

}  // namespace

TEST_SUITE_BEGIN("solvers");

TEST_CASE("every solver inverts under every filter, each row as if alone, twice to the bit, in float64 and float32") {
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
  struct Precision {
    at::ScalarType type;
    const char* tolerance;
    double residual, error;  // what a residual may be, and an answer's error
  };
  const std::vector<Precision> precisions{{at::kDouble, "1e-10", 1e-9, 1e-7}, {at::kFloat, "1e-4", 1e-3, 1e-2}};
  std::int64_t solved = 0;
  for (const auto& method : methods<Solver>()) {
    for (const auto& [eigenvalues, filter] : cases) {
      if (!takes(*create<Solver>(method.name), eigenvalues, filter)) {
        continue;
      }
      ++solved;
      for (const auto& [type, tolerance, residual, error] : precisions) {
        CAPTURE(method.name);
        CAPTURE(to_string(filter.inversion));
        CAPTURE(filter.damping);
        CAPTURE(c10::toString(type));
        const auto exact = with_eigenvalues(eigenvalues), matrix = exact.to(type);
        const auto b = Random(2).normal({3, 6}).to(type);
        const auto spec = fmt::format("{}:relative-tolerance={}", method.name, tolerance);
        at::Tensor x, again, alone;
        for (const auto& summary : solve(spec, matrix, filter, b, x)) {
          CAPTURE(summary.message);
          CHECK(summary.termination == Termination::kConverged);
          CHECK(summary.relative_residual >= 0);
          CHECK(summary.relative_residual < residual);
          CHECK(summary.seconds >= 0);
        }
        CHECK((x.scalar_type() == type));
        CHECK(relative_error(x, filtered(exact, filter, b.to(at::kDouble))) < error);
        solve(spec, matrix, filter, b, again);
        CHECK(at::equal(x, again));
        solve(spec, matrix, filter, b.narrow(0, 1, 1), alone);
        CHECK(relative_error(alone, x.narrow(0, 1, 1)) < error);
      }
    }
  }
  CHECK(solved >= 45);  // seven solvers, of which one takes no negative eigenvalues
}

TEST_CASE("every solver refuses what it says that it cannot take, and says whether it has picked another") {
  const auto a = std::make_shared<MatrixOperator>(with_eigenvalues(test::geometric(1, 0.1, 60)));
  std::int64_t prepared = 0;
  for (const auto& method : methods<Solver>()) {
    CAPTURE(method.name);
    const auto solver = create<Solver>(method.name);
    if (needs_stage(*solver)) {
      CHECK_THROWS_AS(solver->prepare({a, {Inversion::kDamped, 0.1}}), InvalidArgument);
      continue;
    }
    if (solver->needs_damping(a->size())) {
      CHECK_THROWS_AS(solver->prepare({a}), InvalidArgument);
    }
    const auto inverse = solver->prepare({a, {Inversion::kDamped, 0.1}});
    CHECK(inverse->picked().empty() != solver->picks());
    CHECK(inverse->picked() == solver->pick({.parameters = a->size()}));
    ++prepared;
  }
  CHECK(prepared > 0);
}

TEST_CASE("every solver inverts an indefinite matrix or names it, and never returns a number that is not finite") {
  const auto matrix = with_eigenvalues({-0.5, 0.1, 1, 1.5, 2, 3});
  for (const auto& method : methods<Solver>()) {
    if (!solves_by_products(*create<Solver>(method.name))) {
      continue;
    }
    for (const auto type : {at::kDouble, at::kFloat}) {
      CAPTURE(method.name);
      CAPTURE(c10::toString(type));
      at::Tensor x;
      const auto b = Random(2).normal({2, 6}).to(type);
      for (const auto& summary : solve(method.name, matrix.to(type), {Inversion::kDamped, 0.01}, b, x)) {
        CAPTURE(summary.message);
        if (summary.termination == Termination::kConverged) {
          CHECK(relative_error(x, filtered(matrix, {Inversion::kDamped, 0.01}, b.to(at::kDouble))) < 1e-2);
        } else {
          CHECK((summary.termination == Termination::kIndefinite || summary.termination == Termination::kDiverged));
        }
      }
      CHECK(at::isfinite(x).all().item<bool>());
    }
  }
}

TEST_CASE("every solver answers a zero right-hand side with zero beside one that is not") {
  const auto matrix = with_eigenvalues({0.5, 1, 2});
  auto b = at::zeros({2, 3}, at::kDouble);
  b[1].fill_(1);
  for (const auto& method : methods<Solver>()) {
    if (!solves_by_products(*create<Solver>(method.name))) {
      continue;
    }
    for (const auto type : {at::kDouble, at::kFloat}) {
      CAPTURE(method.name);
      CAPTURE(c10::toString(type));
      at::Tensor x;
      const auto summaries = solve(method.name, matrix.to(type), {Inversion::kPseudo}, b.to(type), x);
      CHECK(summaries[0].termination == Termination::kConverged);
      CHECK(summaries[0].relative_residual == 0);
      CHECK(x[0].abs().max().item<double>() == 0);
      CHECK(relative_error(x[1], at::mv(at::linalg_inv(matrix), b[1])) < 1e-4);
    }
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

TEST_CASE("a progress callback stops every solver that reports, at whichever report it throws") {
  const auto a = std::make_shared<MatrixOperator>(with_eigenvalues({1, 2, 5, 10, 20, 50}));
  const auto b = at::ones({1, 6}, at::kDouble);
  int reporting = 0;
  for (const auto& method : methods<Solver>()) {
    CAPTURE(method.name);
    const auto solver = create<Solver>(method.name);
    if (needs_stage(*solver)) {
      continue;
    }
    const auto inverse = solver->prepare({a, {Inversion::kDamped, 0.1}});
    at::Tensor x;
    int reports = 0;
    inverse->apply(b, x, [&](const ProgressEvent&) { ++reports; });
    reporting += reports > 0 ? 1 : 0;
    for (int stop = 1; stop <= std::min(reports, 5); ++stop) {
      int seen = 0;
      const auto stopping = [&](const ProgressEvent&) {
        if (++seen == stop) {
          throw Interrupted();
        }
      };
      CHECK_THROWS_AS(inverse->apply(b, x, stopping), Interrupted);
      CHECK(seen == stop);
    }
  }
  CHECK(reporting >= 3);
}

TEST_SUITE_END();
