#pragma once
#include "whence/curvature/linear_operator.h"

namespace whence {

/// A curvature known through its root: A = J' J + diag(d), with one or more rows of J an example, d >= 0 the penalty's.
/// In the dual, J J' is a matrix over rows rather than parameters.
class GramOperator : public LinearOperator {
 public:
  /// Rows of J.
  virtual std::int64_t rows() const = 0;
  /// J x: [K, P] to [K, rows], examples in order and each one's rows together.
  virtual at::Tensor times(const at::Tensor& x) const = 0;
  /// J' u: [K, rows] to [K, P].
  virtual at::Tensor transposed_times(const at::Tensor& u) const = 0;
  /// d: [P].
  virtual const at::Tensor& diagonal() const = 0;
  /// J diag(scale) J' [rows, rows]. `scale` [P] must be constant over each weight and each bias, as d is; throws
  /// InvalidArgument otherwise. Cost: never forms J; a product of two matrices of rows a layer.
  virtual at::Tensor gram(const at::Tensor& scale) const = 0;
};

}  // namespace whence
