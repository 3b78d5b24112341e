#pragma once
#include <ATen/core/Tensor.h>

namespace whence {

/// check_interruption() now, and again when the gradient at x is computed: so that whoever stops a program does not
/// wait until a pass over a large batch ends. Gives back x.
const at::Tensor& interruptible(const at::Tensor& x);

}  // namespace whence
