#pragma once
// Where attention looks: rotary positions, masks, and what goes on from the keys and values of a beginning.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "whence/data/batch.h"
#include "whence/models/detail/transformer_config.h"
#include "whence/models/language_model.h"
#include "whence/models/ops.h"

namespace whence::detail {

/// Cosines and sines of every token's rotary angles: [R, 1, T, width / 2].
struct Rotation {
  at::Tensor cosine, sine;
};
/// Angles in double, as the cosines and sines that the options' dtype holds.
Rotation rotation(const Rotary& rotary, std::int64_t context, const TokenLayout& text,
                  const at::TensorOptions& options);
/// Turns the first dimensions of each head of x [R, H, T, D], pairing the first half of them with the second.
at::Tensor rotate(const at::Tensor& x, const Rotation& turn);

/// Which keys each query may look at, [R, 1, T, T]; undefined where all, or in a causal model all before it. `window`
/// is how many places back a query sees, and ahead where the model is not causal, itself included; 0: all.
at::Tensor allowed(const TokenLayout& text, bool causal, std::int64_t window);
/// The same of a continuation, [R or 1, 1, T, S], S counting the beginning's tokens too.
at::Tensor allowed_after(const Continuation& continuation, const TokenLayout& text, std::int64_t window);

/// What a block's attention is told of where it looks.
struct Look {
  Rotation turn;    ///< Not defined: no rotary positions.
  at::Tensor mask;  ///< As allowed() gives it.
  AttentionLogits logits{1};
};

/// Puts what a block's beginning left before the keys and values of the tokens after it.
void go_on_from(const Continuation& continuation, std::int64_t layer, at::Tensor& k, at::Tensor& v);

/// The mean over heads of the attention weights from `places` of q [R, H, T, D] to k [R, G, S, D]: [A, S].
at::Tensor attention_weights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& allowed,
                             const AttentionLogits& how, const at::Tensor& places);

/// The slope of each head that ALiBi has: powers of a half, at the same distances from 8 on for heads that are a power
/// of two, else with every other one of twice as many behind: [heads] float64.
at::Tensor alibi_slopes(std::int64_t heads);

}  // namespace whence::detail
