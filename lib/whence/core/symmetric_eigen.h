#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace whence {

struct SymmetricEigen {
  at::Tensor values;   ///< [n], rising.
  at::Tensor vectors;  ///< [n, n], a column each.
};

/// Eigenvalues and vectors of a symmetric matrix [n, n] of float32 or float64, in its dtype and on its device. LAPACK's
/// iteration can fail in float32 on a matrix with many equal eigenvalues, as units that never fire leave: then they are
/// found in float64. Throws NumericalError, which names `what`, where that fails too. O(n^3).
SymmetricEigen symmetric_eigen(const at::Tensor& matrix, const std::string& what);

}  // namespace whence
