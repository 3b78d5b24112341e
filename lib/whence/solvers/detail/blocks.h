#pragma once
#include <ATen/core/Tensor.h>

#include <Eigen/Core>

#include "whence/core/random.h"

namespace whence::detail {

/// Row-major like a block of vectors, so that one maps onto the other.
using SmallMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// <a_i, b_j> of the rows of two blocks [M, P] and [N, P]: M x N, accumulated in double in an order that does not
/// depend on the thread count.
SmallMatrix block_dots(const at::Tensor& a, const at::Tensor& b);

/// The matrix as a tensor of the options.
at::Tensor to_tensor(const SmallMatrix& matrix, const at::TensorOptions& options);
/// A [M, N] tensor of any type and device in double.
SmallMatrix to_matrix(const at::Tensor& tensor);

struct Eigenpairs {
  Eigen::VectorXd values;  ///< Ascending.
  SmallMatrix vectors;     ///< In columns.
};
/// Of a symmetric matrix, of which the lower half is read.
Eigenpairs eigenpairs(const SmallMatrix& symmetric);

/// factors' x: row i is sum_j factors(j, i) x_j. [M, P] by M x N gives [N, P].
at::Tensor combine(const SmallMatrix& factors, const at::Tensor& x);

/// Rows [count, size] of standard normal numbers as `options` say, drawn one at a time: no block of float64 beside
/// them.
at::Tensor normal_rows(Random& random, std::int64_t count, std::int64_t size, const at::TensorOptions& options);

/// x = factors' basis with orthonormal rows of `basis`.
struct RowFactors {
  at::Tensor basis;     ///< [N, P], N <= M.
  SmallMatrix factors;  ///< N x M.
};
/// The rows' span by Householder's QR and the singular values of its small factor, without the directions whose
/// singular value is at most `floor`, or at most `tolerance` times the largest. No direction where x is not finite.
RowFactors factor_rows(const at::Tensor& x, double tolerance, double floor = 0);

}  // namespace whence::detail
