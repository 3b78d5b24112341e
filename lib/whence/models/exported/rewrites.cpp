// Operators that are called otherwise than the exported program says, with the same values.
#include <ATen/ATen.h>
#include <ATen/functorch/DynamicLayer.h>
#include <fmt/format.h>

#include <limits>
#include <map>

#include "whence/core/error.h"
#include "whence/models/exported/detail/operators.h"
#include "whence/models/ops.h"

namespace whence::detail {
namespace {
using torch::jit::Stack;

/// A view where the strides allow it: those of the exported run may have been others, of another attention say.
void as_reshape(Stack& stack) {
  const auto shape = torch::jit::pop(stack).toIntVector();
  const auto x = torch::jit::pop(stack).toTensor();
  stack.emplace_back(x.reshape(shape));
}

/// Rows of the table, of which the padding's gets no gradient in either mode: forward mode knows of no padding index.
void embedding_without_padding(Stack& stack) {
  torch::jit::drop(stack, 2);  // scale_grad_by_freq, sparse: of the gradient's form
  const auto padding = torch::jit::pop(stack).toInt();
  const auto ids = torch::jit::pop(stack).toTensor();
  const auto table = torch::jit::pop(stack).toTensor();
  auto out = at::embedding(table, ids);
  if (padding >= 0) {
    out = at::where(ids.eq(padding).unsqueeze(-1), out.detach(), out);
  }
  stack.emplace_back(out);
}

/// A literal is detached in place, which a view of all examples' is not.
void detach_apart(Stack& stack) {
  const auto x = torch::jit::pop(stack).toTensor();
  stack.emplace_back(x.detach());
}

/// Torch's own has no second derivative.
void hardsigmoid_by_clamp(Stack& stack) {
  const auto x = torch::jit::pop(stack).toTensor();
  stack.emplace_back(at::clamp(x + 3, 0, 6) / 6);
}

/// Torch's own has a wrong third derivative.
void layer_norm_in_pieces(Stack& stack) {
  torch::jit::drop(stack, 1);  // cudnn_enable
  const auto epsilon = torch::jit::pop(stack).toDouble();
  const auto bias = torch::jit::pop(stack).toOptional<at::Tensor>();
  const auto weight = torch::jit::pop(stack).toOptional<at::Tensor>();
  const auto shape = torch::jit::pop(stack).toIntVector();
  const auto x = torch::jit::pop(stack).toTensor();
  if (DerivativeOrder::current() <= 2) {
    stack.emplace_back(at::layer_norm(x, shape, weight, bias, epsilon));
    return;
  }
  std::vector<std::int64_t> over;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    over.push_back(-1 - static_cast<std::int64_t>(i));
  }
  const auto centred = x - x.mean(over, /*keepdim=*/true);
  auto out = centred * (centred.square().mean(over, /*keepdim=*/true) + epsilon).rsqrt();
  out = weight ? out * *weight : out;
  stack.emplace_back(bias ? out + *bias : out);
}

/// Torch's fused kernels have first derivatives in reverse mode alone, and no rule for vmap: beyond those, by products
/// of matrices and a softmax.
void attention(Stack& stack) {
  const bool shared = torch::jit::pop(stack).toBool();
  const auto scale = torch::jit::pop(stack).toOptional<double>();
  const bool causal = torch::jit::pop(stack).toBool();
  torch::jit::drop(stack, 1);  // dropout, which is 0
  auto mask = torch::jit::pop(stack).toOptional<at::Tensor>();
  const auto v = torch::jit::pop(stack).toTensor();
  const auto k = torch::jit::pop(stack).toTensor();
  const auto q = torch::jit::pop(stack).toTensor();
  if (DerivativeOrder::current() < 2 && !at::functorch::maybeCurrentDynamicLayer()) {
    stack.emplace_back(at::scaled_dot_product_attention(q, k, v, mask, 0, causal, scale, shared));
    return;
  }
  if (mask && mask->scalar_type() == at::kBool) {  // where to look; the inner function adds what it is given
    mask = at::where(*mask, at::scalar_tensor(0, q.options()),
                     at::scalar_tensor(-std::numeric_limits<double>::infinity(), q.options()));
  }
  stack.emplace_back(
      std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, mask, 0, causal, std::nullopt, scale, shared)));
}

/// As torch.nn.functional checks it: torch's own reads as many means as there are channels, whatever it is given.
void batch_norm_checked(Stack& stack) {
  const auto epsilon = torch::jit::pop(stack).toDouble(), momentum = torch::jit::pop(stack).toDouble();
  const auto variance = torch::jit::pop(stack).toTensor(), mean = torch::jit::pop(stack).toTensor();
  const auto bias = torch::jit::pop(stack).toOptional<at::Tensor>();
  const auto weight = torch::jit::pop(stack).toOptional<at::Tensor>();
  const auto x = torch::jit::pop(stack).toTensor();
  stack.emplace_back(at::batch_norm(x, weight, bias, mean, variance, false, momentum, epsilon, false));
  stack.emplace_back(at::empty({0}, x.options()));  // what training mode keeps
  stack.emplace_back(at::empty({0}, x.options()));
}

/// v, g and the dimension that g has a length for each entry of, -1: one of all; torch's own reads so many.
struct WeightNorm {
  at::Tensor v, g;
  std::int64_t dim;
};
WeightNorm pop_weight_norm(Stack& stack) {
  const auto dim = torch::jit::pop(stack).toInt();
  const auto g = torch::jit::pop(stack).toTensor(), v = torch::jit::pop(stack).toTensor();
  if (dim >= 0 && dim < v.dim() && g.numel() != v.size(dim)) {
    throw InvalidArgument(fmt::format("a weight norm of {} lengths for {}, expected as many", g.numel(), v.size(dim)));
  }
  return {v, g, dim};
}
void weight_norm_checked(Stack& stack) {
  const auto [v, g, dim] = pop_weight_norm(stack);
  stack.emplace_back(at::_weight_norm(v, g, dim));
}
void weight_norm_interface_checked(Stack& stack) {
  const auto [v, g, dim] = pop_weight_norm(stack);
  auto [weight, norms] = at::_weight_norm_interface(v, g, dim);
  stack.emplace_back(std::move(weight));
  stack.emplace_back(std::move(norms));
}

}  // namespace

OperatorCall rewritten(const c10::OperatorHandle& handle) {
  static const std::map<std::string, void (*)(Stack&)> known = {
      {"aten::view.", as_reshape},
      {"aten::_unsafe_view.", as_reshape},
      {"aten::embedding.", embedding_without_padding},
      {"aten::detach_.", detach_apart},
      {"aten::hardsigmoid.", hardsigmoid_by_clamp},
      {"aten::layer_norm.", layer_norm_in_pieces},
      {"aten::scaled_dot_product_attention.", attention},
      {"aten::_native_batch_norm_legit_no_training.", batch_norm_checked},
      {"aten::_weight_norm.", weight_norm_checked},
      {"aten::_weight_norm_interface.", weight_norm_interface_checked},
  };
  const auto& name = handle.operator_name();
  const auto found = known.find(name.name + "." + name.overload_name);
  return found == known.end() ? OperatorCall() : OperatorCall(found->second);
}

}  // namespace whence::detail
