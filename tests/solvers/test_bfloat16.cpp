// Every curvature under every solver in bfloat16: factorisations and recurrences are made in float32.
#include "matrices.h"
#include "support/toy_chain.h"
#include "whence/core/error.h"
#include "whence/curvature/gram_operator.h"
#include "whence/curvature/spectral_operator.h"

using namespace whence;

TEST_SUITE_BEGIN("solvers");

TEST_CASE("every curvature under every solver that takes it, in bfloat16, is near what it is in float64") {
  const auto stage = test::toy_chain({{.tuning = "full", .loss = "cross-entropy", .weight_decay = 0.1}})[0];
  const auto b = Random(2).normal({2, count_entries(stage.theta)}).to(at::kFloat);
  TensorList theta;
  for (const auto& value : stage.theta) {
    theta.push_back(value.to(at::kBFloat16));
  }
  const auto objective = stage.objective.to(at::kBFloat16);
  const Filter filter{Inversion::kDamped, 0.3};
  for (const auto& curvature : methods<Curvature>()) {
    const auto family = create<Curvature>(curvature.name);
    const auto a = family->operator_at({objective, theta, {}});
    const auto exact = family->operator_at({stage.objective, stage.theta, {}});
    for (const auto& method : methods<Solver>()) {
      if (create<Solver>(method.name)->needs().rows && dynamic_cast<const GramOperator*>(a.get()) == nullptr) {
        continue;
      }
      CAPTURE(curvature.name);
      CAPTURE(method.name);
      const auto solver =
          create<Solver>(method.name == "lissa" ? std::string("lissa:max-depth=200") : std::string(method.name));
      const auto solve = [&](const OperatorPtr& of, const Objective& phi, const TensorList& at, const at::Tensor& right,
                             at::Tensor& x) {
        const auto point = std::make_shared<CurvaturePoint>(CurvaturePoint{phi, at, {}});
        return test::applied(*solver->prepare({of, filter, point}), right, x);
      };
      at::Tensor x, expected;
      const auto summaries = solve(a, objective, theta, b, x);
      solve(exact, stage.objective, stage.theta, b.to(at::kDouble), expected);
      REQUIRE((x.scalar_type() == at::kFloat));
      // a sketch is divided by its own small eigenvalues, which three digits hardly know
      CHECK(test::relative_error(x, expected) < (method.name == "nystroem" ? 0.5 : 0.1));
      for (const auto& summary : summaries) {
        CAPTURE(summary.message);
        CHECK(summary.termination != Termination::kDiverged);
        CHECK(summary.termination != Termination::kIndefinite);
      }
    }
  }
}

TEST_SUITE_END();
