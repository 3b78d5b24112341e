#pragma once
#include <string>
#include <vector>

#include "whence/models/taped_pass.h"

namespace whence {

/// Per-example derivatives of a loss, or of another value of each example, in the model's parameters, from a taped pass
/// (taped_pass.h): a layer's gradients are products of its input and its signal, summed over the example's rows where
/// it has several (the tokens of a text). A parameter that is used twice in a pass, a tied one, counts twice, as it
/// should.
///
/// `names` and the keys of `directions` are names of theta. Throws InvalidArgument on one that no layer on the tape
/// owns.

/// <V_k, grad value_b> for every direction k and example b: [K, B], in algebra_type() of theta's dtype
/// (core/rounding.h). `directions` holds [K, ...shape] for each parameter; a parameter that is absent is a zero
/// direction, and costs nothing. Cost: a forward and a backward pass, and at most K B multiplications an entry of the
/// directions. Memory beyond the passes: 256 MiB, or one example's largest layer.
at::Tensor per_sample_products(const Model& model, const PerExample& values, const ParameterSet& theta,
                               const Batch& batch, const Directions& directions);

/// Whether it is known which rows of a model's layers are tokens: not of an exported one's.
bool tells_tokens(const Model& model);

/// What each token of a batch of texts adds to its example's product with one direction ([1, ...shape] for each
/// parameter): the part of the gradient that arises at the token, where its embedding is read and layers see it. [R T],
/// 0 where padded. R. Grosse et al., "Studying Large Language Model Generalization with Influence Functions", 2023.
at::Tensor per_token_products(const Model& model, const PerExample& values, const ParameterSet& theta,
                              const Batch& batch, const Directions& directions);

/// |grad value_b|^2 over the parameters `names`: [B] float64. The norm of a linear layer or an embedding follows from
/// the products of signals with signals and inputs with inputs; its gradient is not formed.
at::Tensor per_sample_squared_norms(const Model& model, const PerExample& values, const ParameterSet& theta,
                                    const Batch& batch, const std::vector<std::string>& names);

}  // namespace whence
