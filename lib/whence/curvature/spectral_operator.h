#pragma once
#include <functional>

#include "whence/curvature/linear_operator.h"

namespace whence {

/// A function of eigenvalues: a tensor of them, of any shape, to one of the same shape.
using SpectralFunction = std::function<at::Tensor(const at::Tensor& eigenvalues)>;

/// An operator whose eigendecomposition is at hand, so that any function of it costs what a product costs: its inverse,
/// its root, what gradient descent makes of it.
class SpectralOperator : public LinearOperator {
 public:
  /// f(A) x for each row of x: [K, P] to [K, P].
  at::Tensor apply_function(const at::Tensor& x, const SpectralFunction& f) const;

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override {
    return do_apply_function(x, [](const at::Tensor& h) { return h; });
  }
  /// In the dtype of x, which is that of options() or algebra_type() of it.
  virtual at::Tensor do_apply_function(const at::Tensor& x, const SpectralFunction& f) const = 0;
  double trace() const override;
};

/// x -> x * values for each row of x; values [P].
std::shared_ptr<const SpectralOperator> diagonal_operator(at::Tensor values);

}  // namespace whence
