#pragma once
#include "whence/core/registry.h"
#include "whence/data/batch.h"
#include "whence/data/dataset.h"

namespace whence {

/// How wrong an output is. Apart from the model because Gauss-Newton needs the split. An output has one row an example
/// (rows = B) or, of texts whose tokens are predicted, one a prediction.
class Loss {
 public:
  virtual ~Loss() = default;
  /// What a table's label column should be read as.
  virtual TargetKind wants() const = 0;
  /// Loss of each example, unreduced: [B], from output [rows, C].
  virtual at::Tensor per_example(const at::Tensor& output, const Batch& batch) const = 0;
  /// Per row, the Hessian of the loss in the output, times u [rows, C]: [rows, C].
  virtual at::Tensor hessian_product(const at::Tensor& output, const Batch& batch, const at::Tensor& u) const = 0;
  /// Per row, a matrix L [C, R] with L L' that Hessian: [rows, C, R].
  virtual at::Tensor hessian_root(const at::Tensor& output, const Batch& batch) const = 0;
  /// The gradient in the output of the loss with targets drawn from what the model predicts, [rows, C]: its outer
  /// product has that Hessian for its mean. Drawn by `noise` [rows, noise_width(C)], uniform on (0, 1).
  virtual at::Tensor sampled_gradient(const at::Tensor& output, const Batch& batch, const at::Tensor& noise) const = 0;
  virtual std::int64_t noise_width(std::int64_t outputs) const = 0;
  /// Whether it is made of an output here, and so has the three above. Else they throw InvalidArgument.
  virtual bool is_of_output() const { return true; }
};

WHENCE_DECLARE_ROOM(Loss)

}  // namespace whence
