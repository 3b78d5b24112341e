#pragma once
#include "whence/curvature/linear_operator.h"

namespace whence::detail {

/// The residual that a factorised system is held to where nothing is asked: the tightest that float32 reaches.
inline constexpr double kFactorisedTolerance = 1e-4;

/// The matrix of an operator, made symmetric: [P, P] in double on the CPU. P products, 8 P^2 bytes and twice that while
/// it is made. Throws NumericalError, naming `owner`, where an entry is not finite.
at::Tensor dense_matrix(const LinearOperator& a, const char* owner);

}  // namespace whence::detail
