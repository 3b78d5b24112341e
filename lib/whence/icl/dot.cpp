// The inner product of hidden states, DETAIL's kernel.
#include <ATen/ATen.h>

#include "whence/icl/state_kernel.h"

namespace whence {
namespace {

struct DotOptions {
  bool center = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("center", self.center, kAny, "take the demonstrations' mean from every state");
  }
};

class DotKernel : public StateKernel {
 public:
  explicit DotKernel(DotOptions options) : options_(options) {}

  FittedKernel fit(const at::Tensor& demonstrations) const override {
    if (!options_.center) {
      return {[](const at::Tensor& states) { return states; }};
    }
    return {[mean = demonstrations.mean(0)](const at::Tensor& states) { return states - mean; }};
  }

 private:
  DotOptions options_;
};

}  // namespace

WHENCE_METHOD(StateKernel, dot, DotKernel, DotOptions)

}  // namespace whence
