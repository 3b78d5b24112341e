#include "whence/models/interruptible.h"

#include <torch/csrc/autograd/variable.h>

#include "whence/core/progress.h"

namespace whence {

const at::Tensor& interruptible(const at::Tensor& x) {
  check_interruption();
  if (x.requires_grad()) {
    x.register_hook([](const at::Tensor&) { check_interruption(); });
  }
  return x;
}

}  // namespace whence
