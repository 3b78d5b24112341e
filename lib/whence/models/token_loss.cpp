#include "whence/models/detail/token_loss.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/rounding.h"
#include "whence/models/detail/softmax.h"

namespace whence::detail {

at::Tensor TokenLoss::shares(const at::Tensor& output, const Batch& batch) const {
  const auto ones = at::ones({output.size(0)}, algebra_options(output.options()));
  return options_.mean ? spread_to_outputs(batch, sum_outputs(batch, ones).reciprocal()) : ones;
}

at::Tensor TokenLoss::per_example(const at::Tensor& output, const Batch& batch) const {
  if (!batch.predicts_tokens() || batch.targets.size(0) != output.size(0)) {
    throw InvalidArgument(fmt::format("{}: expected texts whose tokens are predicted, one output row each", name_));
  }
  const auto losses = softmax_losses(output, batch.targets);
  return sum_outputs(batch, options_.mean ? losses * shares(output, batch) : losses);
}

at::Tensor TokenLoss::hessian_product(const at::Tensor& output, const Batch& batch, const at::Tensor& u) const {
  return softmax_hessian_product(output, u) * shares(output, batch).unsqueeze(1);
}

at::Tensor TokenLoss::hessian_root(const at::Tensor& output, const Batch& batch) const {
  return softmax_hessian_root(output) * shares(output, batch).sqrt().view({-1, 1, 1});
}

at::Tensor TokenLoss::sampled_gradient(const at::Tensor& output, const Batch& batch, const at::Tensor& noise) const {
  return softmax_sampled_gradient(output, noise) * shares(output, batch).sqrt().unsqueeze(1);
}

}  // namespace whence::detail
