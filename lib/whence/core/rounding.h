#pragma once
#include <ATen/core/Tensor.h>

#include <limits>

namespace whence {

/// The spacing of numbers next to 1: 2.2e-16 in float64, 1.2e-7 in float32, 7.8e-3 in bfloat16.
inline double epsilon(c10::ScalarType type) {
  return type == c10::ScalarType::Double  ? std::numeric_limits<double>::epsilon()
         : type == c10::ScalarType::Float ? std::numeric_limits<float>::epsilon()
         : type == c10::ScalarType::Half  ? 1.0 / 1024
                                          : 1.0 / 128;
}

/// The type that factorisations and recurrences are computed in for numbers of a type: float32 for the shorter ones,
/// for which there are none.
inline c10::ScalarType algebra_type(c10::ScalarType type) {
  return type == c10::ScalarType::Double ? type : c10::ScalarType::Float;
}

}  // namespace whence
