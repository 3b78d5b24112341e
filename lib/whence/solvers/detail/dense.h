#pragma once
#include "whence/curvature/linear_operator.h"
#include "whence/solvers/detail/blocks.h"

namespace whence::detail {

/// The P x P matrix of an operator, made symmetric; P products, 8 P^2 bytes. Throws NumericalError, naming `owner`,
/// where an entry is not finite.
SmallMatrix dense_matrix(const LinearOperator& a, const char* owner);

}  // namespace whence::detail
