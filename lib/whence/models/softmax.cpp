#include "whence/models/detail/softmax.h"

#include <ATen/ATen.h>

#include "whence/core/rounding.h"
#include "whence/models/ops.h"

namespace whence::detail {

at::Tensor softmax_losses(const at::Tensor& output, const at::Tensor& targets) {
  return exact_softplus(-class_log_odds(widened(output), targets));
}

at::Tensor softmax_hessian_product(const at::Tensor& output, const at::Tensor& u) {
  const auto p = at::softmax(widened(output), 1);
  const auto apart = u - u.gather(1, p.argmax(1, /*keepdim=*/true));  // of shifts of u the Hessian knows nothing
  return p * (apart - (p * apart).sum(1, /*keepdim=*/true));
}

at::Tensor softmax_hessian_root(const at::Tensor& output) {
  const auto p = at::softmax(output.to(at::kDouble), 1);
  const auto identity = at::eye(output.size(1), p.options());
  return ((p.unsqueeze(2) - identity) * p.sqrt().unsqueeze(1)).to(algebra_type(output.scalar_type()));
}

at::Tensor softmax_sampled_gradient(const at::Tensor& output, const at::Tensor& noise) {
  const auto p = at::softmax(output.to(at::kDouble), 1), reached = p.cumsum(1);
  const auto drawn = reached.lt(noise.to(reached.options()) * reached.narrow(1, output.size(1) - 1, 1)).sum(1);
  return p
      .scatter_add(1, drawn.clamp_max(output.size(1) - 1).unsqueeze(1), at::full({output.size(0), 1}, -1, p.options()))
      .to(algebra_type(output.scalar_type()));
}

}  // namespace whence::detail
