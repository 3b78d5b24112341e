// Solvers that take a stage, or the rows of its curvature, and not products alone.
#include <torch/csrc/autograd/autograd.h>

#include "matrices.h"
#include "support/toy_chain.h"
#include "whence/curvature/gram_operator.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;

namespace {

struct Problem {
  Stage stage;
  OperatorPtr a;
  bool semidefinite;
  at::Tensor b;
  at::Tensor dense;

  Problem(const std::string& curvature, const std::string& loss, const std::string& model = "mlp:widths=4",
          std::int64_t width = 3, std::int64_t examples = 12)
      : stage(test::toy_chain({{.tuning = "full", .loss = loss, .examples = examples}}, model, 1, width,
                              examples > 100 ? 100 : 5)[0]),
        a(create<Curvature>(curvature)->operator_at({stage.objective, stage.theta, stage.parent})),
        semidefinite(create<Curvature>(curvature)->is_semidefinite()),
        b(Random(2).normal({3, a->size()})),
        dense(a->apply(at::eye(a->size(), at::kDouble))) {}
  std::vector<SolverSummary> solve(std::string_view spec, double damping, at::Tensor& x) const {
    const auto solver = create<Solver>(spec);
    const auto point = std::make_shared<CurvaturePoint>(CurvaturePoint{stage.objective, stage.theta, stage.parent});
    return test::applied(*solver->prepare({a, {Inversion::kDamped, damping}, point, semidefinite}), b, x);
  }
  at::Tensor inverse(double damping) const {
    return at::linalg_solve(dense + damping * at::eye(a->size(), at::kDouble), b.t()).t();
  }
};

}  // namespace

TEST_SUITE_BEGIN("solvers");

TEST_CASE("woodbury is exact for every curvature made of rows, whichever of rows and parameters are more") {
  for (const char* curvature : {"gauss-newton", "fisher", "empirical-fisher"}) {
    for (const char* loss : {"cross-entropy", "squared-error"}) {
      for (const std::int64_t width : {3, 20}) {
        CAPTURE(curvature);
        CAPTURE(loss);
        CAPTURE(width);
        const Problem problem(curvature, loss, "mlp:widths=4", width);
        at::Tensor x;
        for (const auto& summary : problem.solve("woodbury", 0.1, x)) {
          CHECK(summary.termination == Termination::kConverged);
          CHECK(summary.relative_residual < 1e-12);
        }
        CHECK(relative_error(x, problem.inverse(0.1)) < Tolerance::kDense);
      }
    }
  }
}

TEST_CASE("woodbury refuses what is not made of rows, another inversion and too many rows, each with the remedy") {
  const Problem rows("gauss-newton", "cross-entropy"), exact("hessian", "cross-entropy");
  at::Tensor x;
  CHECK_THROWS_WITH_AS(exact.solve("woodbury", 0.1, x), doctest::Contains("expected a curvature that is J' J"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(rows.solve("woodbury:max-bytes=100", 0.1, x), doctest::Contains("36 rows"), InvalidArgument);
  CHECK_THROWS_WITH_AS(create<Solver>("woodbury")->prepare({rows.a, {Inversion::kFiltered, 0.1}}),
                       doctest::Contains("inversion = filtered, expected damped"), InvalidArgument);
}

TEST_CASE("ekfac inverts the curvature's own eigenvectors exactly, and says how far fitted factors are off") {
  const Problem own("ekfac", "cross-entropy");
  at::Tensor x;
  for (const auto& summary : own.solve("ekfac", 0.1, x)) {
    CHECK(summary.termination == Termination::kConverged);
    CHECK(summary.relative_residual < 1e-12);
  }
  CHECK(relative_error(x, own.inverse(0.1)) < Tolerance::kDense);

  const Problem newton("gauss-newton", "cross-entropy");
  at::Tensor y;
  for (const auto& summary : newton.solve("ekfac", 0.1, y)) {
    CHECK(summary.termination == Termination::kApproximate);
    CHECK(summary.relative_residual > 1e-3);
    CHECK(summary.relative_residual < 1);
  }
  CHECK(relative_error(y, x) < Tolerance::kSameAlgebra);  // the same factors
  const Problem linear("gauss-newton", "squared-error", "linear");
  at::Tensor z;
  for (const auto& summary : linear.solve("ekfac", 0.1, z)) {
    CHECK(summary.relative_residual < 1e-12);  // one linear layer: the factors are exact
  }
}

TEST_CASE("datainf is the mean over examples of each one's inverse, layer by layer") {
  const Problem problem("empirical-fisher", "cross-entropy");
  const auto* gram = dynamic_cast<const GramOperator*>(problem.a.get());
  REQUIRE(gram != nullptr);
  const auto n = problem.stage.objective.data().size();
  const auto g = gram->times(at::eye(problem.a->size(), at::kDouble)).t() * std::sqrt(static_cast<double>(n));
  const double damping = 0.1, total = damping + problem.stage.objective.weight_decay();
  auto expected = at::zeros_like(problem.b);
  std::int64_t offset = 0;
  const auto& theta = problem.stage.theta;
  for (std::size_t l = 0; l < theta.size(); l += 2) {  // a weight and its bias
    const auto entries = theta[l].numel() + theta[l + 1].numel();
    for (std::int64_t i = 0; i < n; ++i) {
      const auto part = g[i].narrow(0, offset, entries);
      const auto matrix = at::outer(part, part) + total * at::eye(entries, at::kDouble);
      expected.narrow(1, offset, entries)
          .add_(at::linalg_solve(matrix, problem.b.narrow(1, offset, entries).t()).t() / static_cast<double>(n));
    }
    offset += entries;
  }
  at::Tensor x;
  for (const auto& summary : problem.solve("datainf", damping, x)) {
    CHECK(summary.termination == Termination::kApproximate);
    CHECK(summary.relative_residual > 0);
  }
  CHECK(relative_error(x, expected) < Tolerance::kDense);
}

TEST_CASE("auto takes the eigenvectors, the dense matrix, the dual or cg, and says which and why") {
  at::Tensor x;
  const Problem own("ekfac", "cross-entropy");
  CHECK(own.solve("auto", 0.1, x).front().message.find("auto picked ekfac: the curvature comes with") !=
        std::string::npos);
  const Problem small("hessian", "cross-entropy");
  CHECK(small.solve("auto", 0.1, x).front().message.find("auto picked direct: 31 parameters") != std::string::npos);
  CHECK(relative_error(x, small.inverse(0.1)) < Tolerance::kDense);
  const Problem wide("gauss-newton", "cross-entropy", "mlp:widths=20", 30);
  CHECK(wide.solve("auto", 0.1, x).front().message.find("auto picked woodbury: 36 rows") != std::string::npos);
  CHECK(relative_error(x, wide.inverse(0.1)) < Tolerance::kDense);
  const Problem large("hessian", "cross-entropy", "mlp:widths=20", 30);
  CHECK(large.solve("auto:relative-tolerance=1e-10", 0.1, x)
            .front()
            .message.find("auto picked cg:preconditioner=ekfac") != std::string::npos);
  CHECK(relative_error(x, large.inverse(0.1)) < 1e-8);
  const Problem many("gauss-newton", "cross-entropy", "mlp:widths=20", 30, 1400);  // 4200 rows
  CHECK(many.solve("auto:relative-tolerance=1e-10", 0.1, x).front().message.find("auto picked cg:relative-tolerance") !=
        std::string::npos);
  CHECK(relative_error(x, many.inverse(0.1)) < 1e-8);
}

TEST_CASE("cg and lissa with ekfac and diagonal preconditioners reach the same answer in fewer products") {
  const Problem problem("gauss-newton", "cross-entropy", "mlp:widths=12", 12, 300);
  const double damping = 1e-3;
  const auto expected = problem.inverse(damping);
  double plain = 0;
  for (const char* name : {"none", "diagonal", "ekfac", "nystroem"}) {
    CAPTURE(name);
    at::Tensor x;
    const auto summaries =
        problem.solve(std::string("cg:relative-tolerance=1e-9,rank=20,preconditioner=") + name, damping, x);
    CHECK(summaries.front().termination == Termination::kConverged);
    CHECK(relative_error(x, expected) < 1e-6);
    if (std::string_view(name) == "none") {
      plain = summaries.front().products;
    } else if (std::string_view(name) == "ekfac") {
      CHECK(summaries.front().products < plain);
    }
  }
  at::Tensor x;
  const auto astra = problem.solve("lissa:preconditioner=ekfac,relative-tolerance=1e-6", damping, x);
  CAPTURE(astra.front().message);
  CHECK(astra.front().termination == Termination::kConverged);
  CHECK(relative_error(x, expected) < 1e-3);
}

TEST_SUITE_END();
