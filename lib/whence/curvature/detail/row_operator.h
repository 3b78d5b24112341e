#pragma once
#include "whence/curvature/detail/layer_rows.h"
#include "whence/curvature/linear_operator.h"

namespace whence::detail {

/// The curvature J' J + penalty at a point whose parameters `layout` covers. Rows are made once and kept where they
/// take at most `kept_bytes`, else made anew for every product, which all vectors of a block share.
OperatorPtr row_operator(const CurvaturePoint& point, const LayerLayout& layout, const RowChoice& choice,
                         double kept_bytes);

/// out [K, parent] += J_parent' J_theta v.
void add_row_mixed_product(const CurvaturePoint& point, const LayerLayout& trained, const LayerLayout& parent,
                           const RowChoice& choice, const at::Tensor& v, at::Tensor& out);

}  // namespace whence::detail
