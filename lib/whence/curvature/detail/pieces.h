#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "whence/curvature/curvature.h"

namespace whence::detail {

/// The second derivative of one summand of an objective: a batch's losses, or the penalty.
class Piece {
 public:
  virtual ~Piece() = default;
  /// out[k] += this summand's product with x[k]; both [K, P].
  virtual void add_product(const at::Tensor& x, at::Tensor& out) const = 0;
};

/// Makes the piece of a batch's losses, at a point whose theta are leaves. The point outlives it.
using PieceMaker = std::function<std::unique_ptr<Piece>(const CurvaturePoint&, const Batch&)>;

/// The sum of the pieces of an objective as an operator in theta. Graphs of all batches are built once and kept where
/// they take at most `graph_bytes`, by an estimate from the layers that one example passes; else rebuilt in every
/// product, which all rows of a block share.
OperatorPtr sum_of_pieces(const CurvaturePoint& point, PieceMaker make, double graph_bytes);

/// The exact Hessian's piece of the scalar `value` in `theta`.
std::unique_ptr<Piece> hessian_piece(const at::Tensor& value, const TensorList& theta);

/// The quadratic penalty's second derivative in theta, which is diagonal for every tuning, each being a sum over
/// entries: [P].
at::Tensor penalty_diagonal(const CurvaturePoint& point);

/// The point over `count` of its examples, drawn without replacement; all of them where count is 0 or more than there
/// are. What the option `examples` of a curvature means: a fixed large batch.
CurvaturePoint fixed_examples(const CurvaturePoint& point, std::int64_t count, std::int64_t seed);

/// The penalty's part of X v for each row of v: [K, entries of parent].
at::Tensor penalty_mixed_product(const CurvaturePoint& point, const at::Tensor& v);

/// The Gauss-Newton cross term J_parent' H_out J_theta v with the penalty's: formulas.md 9.4 (c). For every family that
/// approximates the Gauss-Newton matrix.
at::Tensor gauss_newton_mixed_product(const CurvaturePoint& point, const at::Tensor& v);

/// X v for the scalar `value`: out[k] += (d^2 value / d parent d theta) v[k].
void add_mixed_product(const at::Tensor& value, const TensorList& theta, const TensorList& parent, const at::Tensor& v,
                       at::Tensor& out);

}  // namespace whence::detail
