#include <ATen/ATen.h>

#include "whence/kernels/tangent_kernel.h"

namespace whence {
namespace {

/// <grad f_c(x), sign grad f_c'(x')>: a step of -eta sign(chi grad f_c'(x')), Adam's first, moves f_c(x) by -eta
/// sign(chi) times it.
class AsymmetricSignKernel : public TangentKernel {
 public:
  explicit AsymmetricSignKernel(const NoOptions&) {}
  bool plain() const override { return false; }
  bool symmetric() const override { return false; }
  at::Tensor column(at::Tensor gradients) const override { return gradients.sign_(); }
};

}  // namespace

WHENCE_METHOD(TangentKernel, a_signgd, AsymmetricSignKernel, NoOptions)

}  // namespace whence
