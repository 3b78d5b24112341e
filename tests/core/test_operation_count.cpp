#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "whence/core/operation_count.h"

using namespace whence;

TEST_SUITE_BEGIN("core");

TEST_CASE("operations are counted by what they multiply, and alike every time") {
  const auto a = at::randn({3, 4}), b = at::randn({4, 5});
  const auto product = count_operations([&] { at::mm(a, b); });
  CHECK(product.multiplications == 3 * 4 * 5);
  CHECK(product.calls >= 1);
  CHECK(product.bytes == 0);
  CHECK(count_operations([&] { at::bmm(a.expand({2, 3, 4}), b.expand({2, 4, 5})); }).multiplications == 120);
  CHECK(count_operations([&] { at::linear(a, b.t(), at::zeros({5})); }).multiplications == 60);
  const auto sum = count_operations([&] { a.t().add(1); });  // a view touches nothing
  CHECK(sum.multiplications == 0);
  CHECK(sum.bytes == 12 * 4);
  // each of 2 x 6 x 3 x 3 outputs is a sum over 4 channels of 3 x 3
  const auto image = at::randn({2, 4, 5, 5}), kernel = at::randn({6, 4, 3, 3}).requires_grad_();
  const auto both = count_operations([&] { at::conv2d(image, kernel).sum().backward(); });
  CHECK(both.multiplications == 3 * 108 * 36);  // back to the input too, whether or not that is needed
  CHECK(both.nominal_seconds() > 0);
  CHECK(count_operations([] {}).calls == 0);
  CHECK_THROWS_WITH(count_operations([] { throw std::runtime_error("stopped"); }), "stopped");
  CHECK(count_operations([&] { at::mm(a, b); }).calls == product.calls);
}

TEST_SUITE_END();
