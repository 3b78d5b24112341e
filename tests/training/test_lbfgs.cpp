#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "training/problem.h"

using namespace whence;
using namespace whence::test;

namespace {

/// x - log x, smallest at 1 and undefined below 0.
class Barrier : public Loss {
 public:
  TargetKind wants() const override { return TargetKind::kValues; }
  at::Tensor per_example(const at::Tensor& output, const Batch&) const override {
    return (output - output.log()).sum(1);
  }
  at::Tensor hessian_product(const at::Tensor& output, const Batch&, const at::Tensor& u) const override {
    return u / output.square();
  }
  at::Tensor hessian_root(const at::Tensor& output, const Batch&) const override { return output; }
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch&, const at::Tensor&) const override {
    return output;
  }
  std::int64_t noise_width(std::int64_t outputs) const override { return outputs; }
};

}  // namespace

TEST_SUITE("training") {
  TEST_CASE("lbfgs brings the gradient down to 1e-12, on convex problems and on networks") {
    for (const std::string model : {"linear", "mlp:widths=5", "mlp:widths=6/4,activation=gelu"}) {
      for (const std::string loss : {"cross-entropy", "squared-error"}) {
        for (const double weight_decay : {1e-1, 1e-2}) {
          CAPTURE(model);
          CAPTURE(loss);
          CAPTURE(weight_decay);
          const auto objective = made_objective(model, loss, weight_decay);
          auto state = fresh_state(objective);
          const auto summary = create<Optimizer>("lbfgs:tolerance=1e-12,max-iterations=5000")
                                   ->minimise(objective, {}, state, Random(0), {});
          CAPTURE(summary.message);
          CHECK(summary.converged);
          CHECK(summary.gradient_norm <= 1e-12);
        }
      }
    }
  }

  TEST_CASE("lbfgs stops where float32 can fall no further, and says so") {
    for (const std::string model : {"linear", "mlp:widths=5"}) {
      const auto objective = made_objective(model, "cross-entropy", 1e-2, at::kFloat);
      auto state = fresh_state(objective);
      const auto summary = create<Optimizer>("lbfgs:tolerance=1e-12,max-iterations=100000")
                               ->minimise(objective, {}, state, Random(0), {});
      CAPTURE(summary.message);
      CHECK_FALSE(summary.converged);
      CHECK(summary.message.find("rounding only") != std::string::npos);
      CHECK(summary.iterations < 1000);
      CHECK(summary.gradient_norm < 1e-5);
    }
  }

  TEST_CASE("a tolerance is one of the losses' own scale: targets a million times smaller are fitted as well") {
    const auto whole = made_objective("linear", "squared-error", 1e-3);
    const auto all = whole.data().batch(0, whole.data().size());
    for (const double scale : {1.0, 1e-6}) {
      CAPTURE(scale);
      Dataset::Contents contents;
      contents.inputs = all.inputs;
      contents.targets = all.targets * scale;
      contents.ids = at::arange(whole.data().size(), at::kLong);
      auto zero = whole.trained();
      zero = zero.with(zeros_like(zero.values()));
      const Objective objective(create<Model>("linear"), create<Loss>("squared-error"), create<Tuning>("full"),
                                Dataset(std::move(contents)).to(at::kDouble, at::kCPU), 1e-3, zero, {}, 10);
      auto state = fresh_state(objective);
      const auto summary = create<Optimizer>("lbfgs:tolerance=1e-5")->minimise(objective, {}, state, Random(0), {});
      CAPTURE(summary.message);
      CHECK(summary.converged);
      CHECK(summary.iterations > 3);
      const auto expected = ridge_minimum(objective, at::ones({objective.data().size()}, at::kDouble));
      CHECK(relative_error(state.theta[0], expected[0]) < 1e-3);
      auto again = state;
      again.memory.clear();
      CHECK(create<Optimizer>("lbfgs:tolerance=1e-5")->minimise(objective, {}, again, Random(0), {}).iterations <=
            summary.iterations + 30);
    }
  }

  TEST_CASE("tolerance 0 stops as well") {
    const auto objective = made_objective("mlp:widths=5", "cross-entropy");
    auto state = fresh_state(objective);
    const auto summary =
        create<Optimizer>("lbfgs:tolerance=0,max-iterations=100000")->minimise(objective, {}, state, Random(0), {});
    CHECK(summary.iterations < 2000);
    CHECK(summary.gradient_norm < 1e-13);
  }

  TEST_CASE("the line search steps back from where the objective is undefined") {
    Dataset::Contents contents;
    contents.inputs = at::zeros({2, 1}, at::kDouble);
    contents.targets = at::zeros({2, 1}, at::kDouble);
    contents.ids = at::arange(2, at::kLong);
    ParameterSet theta;
    theta.add("head.weight", at::zeros({1, 1}, at::kDouble));
    theta.add("head.bias", at::full({1}, 3, at::kDouble));
    std::int64_t undefined = 0;
    struct Counting : Barrier {
      std::int64_t& count;
      explicit Counting(std::int64_t& c) : count(c) {}
      at::Tensor per_example(const at::Tensor& output, const Batch& batch) const override {
        count += output.min().item<double>() < 0 ? 1 : 0;
        return Barrier::per_example(output, batch);
      }
    };
    const Objective objective(create<Model>("linear"), std::make_shared<Counting>(undefined), create<Tuning>("full"),
                              Dataset(std::move(contents)).to(at::kDouble, at::kCPU), 0, theta, {}, 10);
    auto state = fresh_state(objective);
    const auto summary = create<Optimizer>("lbfgs:tolerance=1e-12")->minimise(objective, {}, state, Random(0), {});
    CHECK(undefined > 0);
    CHECK(summary.converged);
    CHECK(state.theta[1].item<double>() == doctest::Approx(1).epsilon(1e-12));
  }

  TEST_CASE("a quadratic takes few evaluations, and a line search few") {
    const auto objective = made_objective("linear", "squared-error");
    auto state = fresh_state(objective);
    const auto summary = create<Optimizer>("lbfgs:tolerance=1e-10")->minimise(objective, {}, state, Random(0), {});
    CHECK(summary.converged);
    CHECK(summary.iterations <= 25);
    const auto at = summary.message.find("and ");
    CHECK(std::stoll(summary.message.substr(at + 4)) <= 2 * summary.iterations + 5);
  }
}
