#include "whence/models/detail/softmax.h"

#include <ATen/ATen.h>

#include "whence/core/rounding.h"

namespace whence::detail {

at::Tensor softmax_losses(const at::Tensor& output, const at::Tensor& targets) {
  return at::log_softmax(widened(output), 1).gather(1, targets.unsqueeze(1)).squeeze(1).neg();
}

at::Tensor softmax_hessian_product(const at::Tensor& output, const at::Tensor& u) {
  const auto p = at::softmax(widened(output), 1);
  return p * (u - (p * u).sum(1, /*keepdim=*/true));
}

at::Tensor softmax_hessian_root(const at::Tensor& output) {
  const auto p = at::softmax(widened(output), 1);
  const auto identity = at::eye(output.size(1), p.options());
  return (p.unsqueeze(2) - identity) * p.sqrt().unsqueeze(1);
}

at::Tensor softmax_sampled_gradient(const at::Tensor& output, const at::Tensor& noise) {
  const auto p = at::softmax(widened(output), 1);
  const auto reached = p.to(at::kDouble).cumsum(1);
  const auto drawn = reached.lt(noise.to(reached.options()) * reached.narrow(1, output.size(1) - 1, 1)).sum(1);
  return p.scatter_add(1, drawn.clamp_max(output.size(1) - 1).unsqueeze(1),
                       at::full({output.size(0), 1}, -1, p.options()));
}

}  // namespace whence::detail
