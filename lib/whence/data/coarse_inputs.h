#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "whence/data/dataset.h"

namespace whence {

/// An input that varies so little beside its size that a floating type cannot work with it: a time in milliseconds
/// since 1970, in float32, is the same number for two minutes. Gradients and curvature sum squares of it, in which the
/// squares of its differences drown where they are less than the rounding: residuals are then small and mean nothing.
struct CoarseInput {
  std::int64_t index = 0;  ///< In the flattened input.
  double magnitude = 0;    ///< The largest |x|.
  double spread = 0;       ///< The largest x less the smallest, before rounding.
};

/// Whether a spread is less than sqrt(2 epsilon) of a magnitude, which is 4096 spacings of float32.
bool is_coarse(const CoarseInput& input, at::ScalarType dtype);
/// The inputs that are coarse for `dtype`; those that are constant are none. Nothing where examples are texts, where
/// the dtype is shorter than float32, which is coarse by choice, and where there are more than 2^26 numbers to look
/// through (images, which have no such columns). Cost: a pass over the inputs.
std::vector<CoarseInput> coarse_inputs(const Dataset& data, at::ScalarType dtype);

/// What a person needs to know of them, in one line: the input, its numbers, and what to type; empty where there are
/// none. `names` are the inputs' names; empty: they have numbers alone. `trained`: on these inputs as they are, so that
/// others need another training.
std::string coarse_inputs_text(const std::vector<CoarseInput>& inputs, const std::vector<std::string>& names,
                               at::ScalarType dtype, bool trained);

}  // namespace whence
