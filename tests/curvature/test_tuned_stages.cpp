// The curvatures of stages that train what a tuning adds: products against plain autograd, example by example, neither
// padded nor packed.
#include <torch/csrc/autograd/autograd.h>

#include <map>

#include "support/near.h"
#include "tuning/cases.h"
#include "whence/core/error.h"
#include "whence/curvature/curvature.h"

using namespace whence;
using test::for_every_tuning;
using test::relative_error;
using test::Tolerance;
using test::TuningBench;

namespace {

/// The family's matrix [P, P and entries of the parent] times `x` [P] on the left, with the penalty's.
at::Tensor product(CurvatureFamily family, const Stage& stage, const at::Tensor& x) {
  const auto& objective = stage.objective;
  const auto theta = leaves(stage.theta), parent = leaves(stage.parent);
  auto all = theta;
  all.insert(all.end(), parent.begin(), parent.end());
  const auto direction = unflatten(x, theta);
  const auto along = [&](const at::Tensor& value) {  // of the Hessian of a scalar
    return flatten(gradient(gradient(value, theta, true), all, direction));
  };
  auto out = along(objective.penalty(theta, parent));
  const auto n = objective.data().size();
  for (std::int64_t i = 0; i < n; ++i) {
    const auto one = objective.data().batch(i, i + 1);
    const auto output = objective.output(theta, parent, one);
    if (output.numel() == 0) {
      continue;  // a text of one token predicts nothing
    }
    at::Tensor part;
    if (family == CurvatureFamily::kHessian) {
      part = along(objective.loss().per_example(output, one).sum());
    } else if (family == CurvatureFamily::kEmpiricalFisher) {
      const auto g = flatten(gradient(objective.loss().per_example(output, one).sum(), all));
      part = g * g.narrow(0, 0, x.size(0)).dot(x);
    } else {
      const auto cotangent = leaves({at::zeros_like(output.detach())});
      const auto pulled = gradient(TensorList{output}, theta, cotangent, true, true);
      const auto pushed = gradient(pulled, cotangent, direction, false, true);
      const auto free = leaves({output.detach()});
      const auto slope = gradient(objective.loss().per_example(free[0], one).sum(), free, true);
      part = flatten(gradient(TensorList{output}, all, gradient(slope, free, pushed)));
    }
    out = out + part / static_cast<double>(n);
  }
  return out.detach();
}

/// The mean of the examples' squared gradients [P], with the penalty's second derivative, which is constant.
at::Tensor squared_gradients(const Stage& stage) {
  const auto n = stage.objective.data().size();
  const auto theta = leaves(stage.theta);
  const auto p = count_entries(theta);
  auto out = at::zeros({p}, at::kDouble);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto loss = stage.objective.example_losses(theta, stage.parent, stage.objective.data().batch(i, i + 1));
    out += flatten(gradient(loss.sum(), theta)).square() / static_cast<double>(n);
  }
  const auto slope = gradient(stage.objective.penalty(theta, stage.parent), theta, true);
  return out + flatten(gradient(slope, theta, unflatten(at::ones({p}, at::kDouble), theta)));
}

void check_diagonal(const Stage& stage, const char* curvature) {
  const auto expected = squared_gradients(stage);
  const auto a = create<Curvature>(curvature)->operator_at({stage.objective, stage.theta, stage.parent});
  CHECK(relative_error(a->apply(at::ones({1, expected.size(0)}, at::kDouble))[0], expected) < Tolerance::kDense);
}

}  // namespace

TEST_SUITE_BEGIN("curvature");

TEST_CASE("every family at every tuning is its matrix, and its mixed products are those with the parent") {
  for_every_tuning([](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const CurvaturePoint point{stage.objective, stage.theta, stage.parent};
    const auto p = count_entries(stage.theta), q = count_entries(stage.parent);
    const auto x = Random(3).normal({p});
    std::map<CurvatureFamily, at::Tensor> products;
    for (const char* name : {"hessian", "gauss-newton", "gauss-newton:rows=false", "empirical-fisher"}) {
      CAPTURE(name);
      const auto curvature = create<Curvature>(name);
      OperatorPtr a;
      try {
        a = curvature->operator_at(point);
      } catch (const InvalidArgument&) {  // by rows alone
        CHECK(curvature->family() == CurvatureFamily::kEmpiricalFisher);
        CHECK_FALSE(has_rows(point));
        continue;
      }
      auto& expected = products[curvature->family()];
      if (!expected.defined()) {
        expected = product(curvature->family(), stage, x);
      }
      CHECK(relative_error(a->apply(x.unsqueeze(0))[0], expected.narrow(0, 0, p)) < Tolerance::kDense);
      if (curvature->family() != CurvatureFamily::kEmpiricalFisher) {
        CHECK(relative_error(curvature->mixed_product(point, x.unsqueeze(0))[0], expected.narrow(0, p, q)) <
              Tolerance::kDense);
      }
    }
  });
}

TEST_CASE("the diagonal at every tuning is the examples' squared gradients") {
  for_every_tuning([](const TuningBench& bench, const std::string& spec) {
    const auto stage = bench.tuned(spec);
    const bool tied = spec.find("wte") != std::string::npos || (spec.starts_with("full") && bench.ties());
    if (!tied) {  // a table that is a head too counts use by use: test_every_curvature_on_texts.cpp
      check_diagonal(stage, "diagonal:labels=data");
    }
  });
}

TEST_CASE("factors keep a prompt's diagonal, and name what makes a prefix, which is no layer's") {
  const TuningBench bench(test::kTuningCases[3]);
  const auto prompt = bench.tuned("prompt:length=2");
  for (const char* curvature : {"diagonal:labels=data", "kfac:labels=data", "ekfac:labels=data"}) {
    CAPTURE(curvature);
    check_diagonal(prompt, curvature);
  }
  const auto made = bench.tuned("prefix:length=1,mlp=2");
  for (const char* curvature : {"diagonal", "kfac", "ekfac"}) {
    CAPTURE(curvature);
    CHECK_THROWS_WITH_AS(
        create<Curvature>(curvature)->operator_at({made.objective, made.theta, made.parent}),
        doctest::Contains(
            "tuning.prefix.embedding is no layer's weight or bias: use --curvature gauss-newton or hessian"),
        InvalidArgument);
  }
}

TEST_SUITE_END();
