#include <ATen/ATen.h>

#include "whence/kernels/tangent_kernel.h"

namespace whence {
namespace {

/// <sign grad f_c(x), sign grad f_c'(x')>, the sign of 0 being 0.
class SignKernel : public TangentKernel {
 public:
  explicit SignKernel(const NoOptions&) {}
  bool plain() const override { return false; }
  bool symmetric() const override { return true; }
  at::Tensor row(at::Tensor gradients) const override { return gradients.sign_(); }
  at::Tensor column(at::Tensor gradients) const override { return gradients.sign_(); }
};

}  // namespace

WHENCE_METHOD(TangentKernel, signgd, SignKernel, NoOptions)

}  // namespace whence
