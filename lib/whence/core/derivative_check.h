#pragma once
#include <cstdint>
#include <functional>

#include "whence/core/tensors.h"

namespace whence {

/// How far automatic derivatives are from central differences, as |a - b| / max(|a|, |b|) over whole vectors. About
/// 1e-9 to 1e-7 for a right derivative of a smooth function of ordinary scale; infinite where a value is not finite.
struct DerivativeErrors {
  double gradient = 0;         ///< Of the gradient in x and, where there is a y, in y.
  double hessian_product = 0;  ///< Of the Hessian in x times a random direction.
  double mixed_product = 0;    ///< Of d/dy <gradient in x, random direction>; 0 where there is no y.
};

/// Checks the first and second derivatives of a scalar function at x, converted to float64. For models, losses and
/// merges that you write yourself. Cost: two evaluations an entry, so choose small shapes. A kink within 1e-5 of x
/// shows as an error.
DerivativeErrors check_derivatives(const std::function<at::Tensor(const TensorList&)>& function, const TensorList& x,
                                   std::uint64_t seed = 0);
DerivativeErrors check_derivatives(const std::function<at::Tensor(const TensorList&, const TensorList&)>& function,
                                   const TensorList& x, const TensorList& y, std::uint64_t seed = 0);

}  // namespace whence
