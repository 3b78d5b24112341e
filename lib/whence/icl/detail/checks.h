#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

namespace whence::detail {

/// Throws, naming `what`, where `x` is not what a method can take. InvalidArgument: undefined, not of a floating type,
/// or not of shape `expected`, whose letters ("[L, n, d]") `letters` are; -1 stands for any size but 0. NumericalError,
/// with the first such entry: not finite.
void check_values(const at::Tensor& x, std::string_view what, at::IntArrayRef expected, std::string_view letters);

}  // namespace whence::detail
