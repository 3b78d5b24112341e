#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "support/near.h"
#include "whence/core/derivative_check.h"
#include "whence/core/random.h"

using namespace whence;
using whence::test::Tolerance;

namespace {

TensorList point(std::uint64_t seed) {
  Random random(seed);
  return {random.normal({3, 2}), random.normal({4})};
}

/// The value of x.pow(3).sum(), with `wrong` times it hidden from the second derivative.
at::Tensor cubic(const TensorList& x, double wrong) {
  return x[0].pow(3).sum() + x[1].pow(3).sum() + wrong * (x[0].detach() * x[0]).sum();
}

/// x * y with the right gradient, whose own derivative autograd takes for zero.
struct OnceDifferentiable : torch::autograd::Function<OnceDifferentiable> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& y) {
    context->save_for_backward({x, y});
    return x * y;
  }
  static TensorList backward(torch::autograd::AutogradContext* context, const TensorList& g) {
    const auto saved = context->get_saved_variables();
    return {g[0] * saved[1].detach(), g[0] * saved[0].detach()};
  }
};

}  // namespace

TEST_SUITE("core") {
  TEST_CASE("a smooth function passes the derivative check") {
    const auto errors =
        check_derivatives([](const TensorList& x) { return at::tanh(x[0]).sum() * x[1].exp().sum(); }, point(1));
    CHECK(errors.gradient < Tolerance::kDifferences);
    CHECK(errors.hessian_product < Tolerance::kDifferences);
    CHECK(errors.mixed_product == 0);
  }

  TEST_CASE("the mixed derivative of a function of two lists passes") {
    const auto errors = check_derivatives(
        [](const TensorList& x, const TensorList& y) {
          return (at::tanh(x[0]) * y[0].sin()).sum() + (x[1] * y[1]).pow(2).sum();
        },
        point(1), point(2));
    CHECK(errors.gradient < Tolerance::kDifferences);
    CHECK(errors.hessian_product < Tolerance::kDifferences);
    CHECK(errors.mixed_product < Tolerance::kDifferences);
  }

  TEST_CASE("a derivative that autograd cannot see is found") {
    const auto right = check_derivatives([](const TensorList& x) { return cubic(x, 0); }, point(3));
    CHECK(right.gradient < Tolerance::kDifferences);
    const auto wrong = check_derivatives([](const TensorList& x) { return cubic(x, 0.5); }, point(3));
    CHECK(wrong.gradient > 0.01);
    CHECK(wrong.hessian_product > 0.01);
    const auto mixed = check_derivatives(
        [](const TensorList& x, const TensorList& y) { return OnceDifferentiable::apply(x[1], y[1]).sum(); }, point(1),
        point(2));
    CHECK(mixed.gradient < Tolerance::kDifferences);
    CHECK(mixed.mixed_product == doctest::Approx(1));
  }

  TEST_CASE("float32 points are checked in double; a value that is not finite is an infinite error") {
    TensorList x = {point(1)[0].to(at::kFloat)};
    CHECK(check_derivatives([](const TensorList& at) { return at[0].exp().sum(); }, x).gradient <
          Tolerance::kDifferences);
    CHECK(std::isinf(check_derivatives([](const TensorList& at) { return (at[0] - 100).log().sum(); }, x).gradient));
  }
}
