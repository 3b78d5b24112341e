#include "whence/kernels/tangent_kernel.h"

namespace whence {
namespace {

/// <grad f_c(x), grad f_c'(x')>
class NeuralTangentKernel : public TangentKernel {
 public:
  explicit NeuralTangentKernel(const NoOptions&) {}
  bool plain() const override { return true; }
  bool symmetric() const override { return true; }
};

}  // namespace

WHENCE_METHOD(TangentKernel, entk, NeuralTangentKernel, NoOptions)

}  // namespace whence
