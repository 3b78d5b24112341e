#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace whence {

/// Some examples of one dataset. Dimension 0 of every tensor is the example.
struct Batch {
  at::Tensor inputs;   ///< [B, ...]
  at::Tensor targets;  ///< [B] int64 class numbers, or [B, k] values.
  at::Tensor ids;      ///< [B] int64: the row of each example in its source, before any filter.
  at::Tensor rows;     ///< [B] int64: the row of each example in its dataset, 0 .. N-1.
  std::int64_t size() const { return inputs.size(0); }
};

}  // namespace whence
