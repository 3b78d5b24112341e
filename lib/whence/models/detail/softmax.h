#pragma once
#include <ATen/core/Tensor.h>

namespace whence::detail {

/// The loss -log softmax(output)[target] of rows: output [rows, C], targets [rows] int64. In algebra_type() of it.
/// Nowhere is 1 - p the difference of nearly equal numbers: of an example that the model is sure of, p = 1 - 1e-6, the
/// loss, its derivatives and its Hessian keep their digits in float32 too.
at::Tensor softmax_losses(const at::Tensor& output, const at::Tensor& targets);
/// (diag(p) - p p') u, p = softmax(output): the loss's Hessian in the output, times u [rows, C].
at::Tensor softmax_hessian_product(const at::Tensor& output, const at::Tensor& u);
/// [rows, C, C]: column c is sqrt(p_c) times the gradient of the loss for class c, sqrt(p_c) (p - e_c).
at::Tensor softmax_hessian_root(const at::Tensor& output);
/// The gradient of the loss for a class drawn from p by the uniform `noise` [rows, 1]: [rows, C].
at::Tensor softmax_sampled_gradient(const at::Tensor& output, const at::Tensor& noise);

}  // namespace whence::detail
