#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "whence/core/registry.h"
#include "whence/training/objective.h"

namespace whence {

/// The C numbers of each example that a kernel is of, [B, C], by the model's output for a batch: differentiable, each
/// row a function of its own example alone.
using KernelOutputs = std::function<at::Tensor(const at::Tensor& output, const Batch& batch)>;

/// What the model gives, [B, C]: logits of the classes, of a language model those of the label words at the place where
/// one is asked for, or the values. Throws InvalidArgument where tokens are predicted: an example has no C outputs.
KernelOutputs model_outputs();
/// f_1 - f_0 of two classes, [B, 1]: the one logit of a binary task. Throws InvalidArgument for other numbers of them.
KernelOutputs logit_difference();
/// Each example's loss, [B, 1]: whose eNTK is that of grad-dot. Of any loss, tokens' too. Keeps a reference to `loss`.
KernelOutputs example_losses(const Loss& loss);

/// Where a kernel is taken: a stage's objective, what it trains at some point of its training, the body it was handed,
/// in which of the trained parameters gradients are taken, and of which outputs.
struct KernelPoint {
  Objective objective;
  TensorList theta, parent;  ///< As CurvaturePoint's: at the start or the end of the stage, or anywhere else.
  std::vector<std::string>
      names;  ///< Of objective.trained(), at least one: filtered_parameters() (parameter_filter.h).
  KernelOutputs outputs = model_outputs();
};

/// The outputs at the point, f(x): [N, C] float64 on the CPU. At a stage's start, the offset f0 of a kernel's fit.
/// Throws NumericalError where one is not finite. Cost: a forward pass over the data.
at::Tensor outputs_at(const KernelPoint& point, const Dataset& data);

/// How alike two examples' outputs are in the eyes of training: K((x, c), (x', c')) = <row(grad f_c(x)),
/// column(grad f_c'(x'))>, the gradients being those in a point's parameters and `row` and `column` functions entry by
/// entry. S. Malladi et al., "A Kernel-Based View of Language Model Fine-Tuning", ICML 2023, section 4.
class TangentKernel {
 public:
  virtual ~TangentKernel() = default;
  /// Whether row and column leave gradients as they are: then no gradient needs to be formed.
  virtual bool plain() const = 0;
  /// Whether row and column are the same function, so that K(x, x') = K(x', x).
  virtual bool symmetric() const = 0;
  /// The solver (kernel_solver.h) that learns from it where none is asked for, a spec.
  virtual std::string solver() const { return symmetric() ? "kernel-ridge" : "asymmetric"; }
  /// What stands for entries of gradients, of any shape, on the side of the rows and of the columns. Takes 0 to 0. May
  /// work in place and return its argument.
  virtual at::Tensor row(at::Tensor gradients) const { return gradients; }
  virtual at::Tensor column(at::Tensor gradients) const { return gradients; }
};

WHENCE_DECLARE_ROOM(TangentKernel)

}  // namespace whence
