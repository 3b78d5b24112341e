#pragma once
#include <string_view>

#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/models/tape.h"

namespace whence {

/// What models are built of. Every function is differentiable any number of times. Those with weights take the tape:
/// with one they record what they saw, and return an output that autograd tracks even where neither x nor theta is
/// tracked.

/// x [B, in] times the transpose of LAYER.weight [out, in], plus LAYER.bias [out] where theta has it: [B, out]. Throws
/// InvalidArgument where the widths do not fit.
at::Tensor linear(const ParameterSet& theta, std::string_view layer, const at::Tensor& x, Tape* tape);

/// x [B, in, H, W] filtered by LAYER.weight [out, in, k, k], zero-padded, plus LAYER.bias where theta has it: [B, out,
/// H', W'].
at::Tensor convolution(const ParameterSet& theta, std::string_view layer, const at::Tensor& x, std::int64_t stride,
                       std::int64_t padding, Tape* tape);

/// The words that activation() knows; gelu is the exact one, x Phi(x).
inline constexpr std::string_view kActivations = "tanh|relu|gelu";
at::Tensor activation(std::string_view name, const at::Tensor& x);

/// 2 x 2 means ("avg") or maxima ("max") of x [B, C, H, W]; an odd last row or column is dropped: [B, C, H/2, W/2].
inline constexpr std::string_view kPools = "max|avg";
at::Tensor pool(std::string_view name, const at::Tensor& x);

/// The batch's inputs in theta's dtype.
at::Tensor inputs_like(const ParameterSet& theta, const at::Tensor& inputs);

/// Adds LAYER.weight of `shape` ([out, in] or [out, in, k, k]) and a zero LAYER.bias to `theta`, float64. Weights are
/// normal with variance 2 / fan-in before relu and gelu (K. He et al., ICCV 2015), and 2 / (fan-in + fan-out) before
/// tanh or, with an empty name, no activation (Glorot and Bengio, AISTATS 2010). A layer's numbers depend on `random`
/// and its name alone.
void add_layer(ParameterSet& theta, const std::string& layer, at::IntArrayRef shape, std::string_view activation,
               const Random& random);

}  // namespace whence
