// The inner product of hidden states of length 1: layers and positions of large norm weigh no more than others.
#include <ATen/ATen.h>

#include "whence/icl/state_kernel.h"

namespace whence {
namespace {

struct CosineOptions {
  bool center = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("center", self.center, kAny, "take the demonstrations' mean from every state first");
  }
};

class CosineKernel : public StateKernel {
 public:
  explicit CosineKernel(CosineOptions options) : options_(options) {}

  /// A state of length zero stays zero, so it is like nothing.
  FittedKernel fit(const at::Tensor& demonstrations) const override {
    const auto mean = options_.center ? demonstrations.mean(0) : at::zeros({demonstrations.size(1)}, at::kDouble);
    return {[mean](const at::Tensor& states) {
      const auto rows = states - mean;
      return rows / at::linalg_vector_norm(rows, 2, {1}, /*keepdim=*/true).clamp_min(1e-300);
    }};
  }

 private:
  CosineOptions options_;
};

}  // namespace

WHENCE_METHOD(StateKernel, cosine, CosineKernel, CosineOptions)

}  // namespace whence
