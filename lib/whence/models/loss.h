#pragma once
#include "whence/core/registry.h"
#include "whence/data/batch.h"
#include "whence/data/dataset.h"

namespace whence {

/// How wrong an output is. Apart from the model because Gauss-Newton needs the split.
class Loss {
 public:
  virtual ~Loss() = default;
  /// What a table's label column should be read as.
  virtual TargetKind wants() const = 0;
  /// Loss of each example, unreduced: [B], from output [B, C].
  virtual at::Tensor per_example(const at::Tensor& output, const Batch& batch) const = 0;
  /// Per example, the Hessian of the loss in the output, times u [B, C]: [B, C].
  virtual at::Tensor hessian_product(const at::Tensor& output, const Batch& batch, const at::Tensor& u) const = 0;
  /// Per example, a matrix L [C, R] with L L' that Hessian: [B, C, R].
  virtual at::Tensor hessian_root(const at::Tensor& output, const Batch& batch) const = 0;
  /// The gradient in the output of the loss with a target drawn from what the model predicts, [B, C]: its outer product
  /// has that Hessian for its mean. Drawn by `noise` [B, C], uniform on (0, 1).
  virtual at::Tensor sampled_gradient(const at::Tensor& output, const Batch& batch, const at::Tensor& noise) const = 0;
};

template <>
std::span<const Method<Loss>> methods<Loss>();
template <>
std::string_view room_noun<Loss>();

}  // namespace whence
