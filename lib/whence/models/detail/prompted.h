#pragma once
// Texts behind a soft prompt: the layout that the blocks see.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "whence/data/batch.h"

namespace whence::detail {

/// A batch of texts with P more tokens before each, in rows of their own length [R, T'].
struct Prompted {
  /// What the blocks see: inputs are -1 at the prompt's places, positions count from the prompt's first, types are 0
  /// there. Its row map belongs the prompt's rows to the examples, at the place of the example's first token (origins).
  /// What is predicted or asked for is as it was.
  Batch batch;
  at::Tensor places;      ///< [R T] int64: where each place of the texts is now; 0 for padding. Undefined: no prompt.
  at::Tensor sources;     ///< [R T'] int64: the row to be shown at each place of [texts R T; prompts B P; padding 1].
  RowMap texts, prompts;  ///< Of the R T rows of the texts, and of the B P of the prompts.

  /// Places of the flattened texts as those of the batch's.
  at::Tensor now(const at::Tensor& before) const;
};
Prompted prompted(const Batch& texts, std::int64_t tokens);

}  // namespace whence::detail
