#include "whence/solvers/detail/dense.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/progress.h"

namespace whence::detail {

SmallMatrix dense_matrix(const LinearOperator& a, const char* owner) {
  const auto n = a.size();
  constexpr std::int64_t kBlock = 128;
  SmallMatrix matrix(n, n);
  ProgressScope scope("the dense matrix", n);
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const auto count = std::min(kBlock, n - begin);
    auto unit = at::zeros({count, n}, a.options());
    unit.diagonal(begin).fill_(1);
    matrix.middleRows(begin, count) = to_matrix(a.apply(unit));
    scope.at(begin + count);
  }
  if (!matrix.allFinite()) {
    throw NumericalError(fmt::format("{}: the curvature matrix is not finite", owner));
  }
  return 0.5 * (matrix + matrix.transpose());
}

}  // namespace whence::detail
