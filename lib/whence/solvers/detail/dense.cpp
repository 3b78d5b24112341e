#include "whence/solvers/detail/dense.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/core/progress.h"

namespace whence::detail {

at::Tensor dense_matrix(const LinearOperator& a, const char* owner) {
  const auto n = a.size();
  constexpr std::int64_t kBlock = 128;
  auto matrix = at::empty({n, n}, at::kDouble);
  ProgressScope scope("the dense matrix", n);
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const auto count = std::min(kBlock, n - begin);
    auto unit = at::zeros({count, n}, a.options());
    unit.diagonal(begin).fill_(1);
    matrix.narrow(0, begin, count).copy_(a.apply(unit));
    scope.at(begin + count);
  }
  if (!std::isfinite(matrix.sum().item<double>())) {
    throw NumericalError(fmt::format("{}: the curvature matrix is not finite", owner));
  }
  return matrix.add(matrix.t()).mul_(0.5);
}

}  // namespace whence::detail
