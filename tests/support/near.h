#pragma once
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "whence/core/tensors.h"

namespace whence::test {

/// How close two computations of one quantity must come, by what separates them. Relative errors, as `relative_error`
/// measures.
struct Tolerance {
  static constexpr double kSameAlgebra = 1e-12;  ///< Double, the same operations in another order.
  static constexpr double kDense = 1e-10;        ///< Double, against a dense matrix built entry by entry.
  static constexpr double kDifferences =
      1e-6;  ///< Against central differences with h = 1e-5: rounding 1e-16/h, truncation h^2.
  static constexpr double kFloat = 1e-4;  ///< Float32 against double.
};

/// |a - b| / max(|a|, |b|) over all entries; 0 when both vanish, infinite when one is not finite.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const auto x = a.detach().to(at::kDouble), y = b.detach().to(at::kDouble);
  const double difference = (x - y).norm().item<double>();
  const double size = std::max(x.norm().item<double>(), y.norm().item<double>());
  if (!std::isfinite(difference)) {
    return INFINITY;
  }
  return size == 0 ? 0 : difference / size;
}
inline double relative_error(const TensorList& a, const TensorList& b) {
  return relative_error(flatten(a), flatten(b));
}

/// Whether two lists are of the same shapes and values.
inline bool same_bits(const TensorList& a, const TensorList& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return at::equal(x, y); });
}

}  // namespace whence::test
