#pragma once
#include <map>
#include <string>
#include <vector>

#include "whence/models/loss.h"
#include "whence/models/model.h"

namespace whence {

/// Per-example derivatives of the loss in the model's parameters from one forward and one backward pass: the tape gives
/// every layer's input and the signal at its output, of which the layer's gradients are products. I. Goodfellow,
/// "Efficient Per-Example Gradient Computations", 2015. A layer that is used twice in a pass counts twice, as it
/// should.
///
/// `names` and the keys of `directions` are names of theta. Throws InvalidArgument on one that no layer on the tape
/// owns.

/// <V_k, grad loss_b> for every direction k and example b: [K, B], in theta's dtype. `directions` holds [K, ...shape]
/// for each parameter; a parameter that is absent is a zero direction, and costs nothing. Cost: a forward and a
/// backward pass, and at most K B multiplications an entry of the directions. Memory beyond the passes: 256 MiB, or one
/// example's largest layer.
at::Tensor per_sample_products(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                               const std::map<std::string, at::Tensor>& directions);

/// |grad loss_b|^2 over the parameters `names`: [B] float64. A linear layer's norm is |signal| |input|, and is never
/// formed.
at::Tensor per_sample_squared_norms(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch,
                                    const std::vector<std::string>& names);

/// One entry's per-example gradients in its weight, [B, entries of the weight], and in its bias, [B, out], from the
/// gradient `signal` of the summed losses at its output. Where a layer has several entries, its gradients are the sums
/// of theirs.
at::Tensor weight_gradients(const TapeEntry& entry, const at::Tensor& signal);
at::Tensor bias_gradients(const TapeEntry& entry, const at::Tensor& signal);

/// What each output pixel of a convolution saw: [B, in * k * k, H' * W'].
at::Tensor patches(const TapeEntry& entry);

}  // namespace whence
