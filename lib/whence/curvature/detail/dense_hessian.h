#pragma once
#include <memory>

#include "whence/curvature/detail/pieces.h"

namespace whence::detail {

/// Makes a batch's part of the Hessian of a model of dense layers (models/dense_layers.h), all of which are trained,
/// for all vectors of a block at once: the R-operator of B. Pearlmutter, "Fast exact multiplication by the Hessian",
/// 1994, written out, so that a block is a few large products of matrices. Null where the model is another.
PieceMaker dense_hessian_pieces(const CurvaturePoint& point);

}  // namespace whence::detail
