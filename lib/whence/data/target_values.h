#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "whence/data/dataset.h"

namespace whence {

/// A row of values that a loss cannot compare outputs with, and why: "values sum to 0.7, expected 1".
struct TargetFault {
  std::int64_t row = 0;
  std::string why;
};

/// The first row of `values` [rows, k] that is not what a loss which wants `wanted` takes: shares of the classes (each
/// from 0 to 1, two or more that sum to 1 but for rounding) for kClasses, numbers from 0 to 1 for
/// kProbabilities, anything for the others.
std::optional<TargetFault> target_fault(const at::Tensor& values, TargetKind wanted);

/// Throws DataError naming the first example of `data`, and the file and row that it comes from, whose values such a
/// loss cannot compare with.
void check_targets(const Dataset& data, TargetKind wanted);

}  // namespace whence
