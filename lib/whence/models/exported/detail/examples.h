#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace whence::detail {

/// While it lives, a program sees one example, and runs for all B: torch's vmap. What the program sees as x [1, …] is
/// physically [B, 1, …]. One at a time on a thread.
class OneByOne {
 public:
  explicit OneByOne(std::int64_t examples);
  ~OneByOne();
  OneByOne(const OneByOne&) = delete;
  OneByOne& operator=(const OneByOne&) = delete;

  std::int64_t examples() const { return examples_; }
  /// x [B, …] as the program sees it, […].
  at::Tensor seen(const at::Tensor& x) const;
  /// All examples' x […]: [B, …]; where it is the same for all, repeated without a copy.
  at::Tensor of_all(const at::Tensor& x) const;
  /// Whether examples differ in it.
  bool differs(const at::Tensor& x) const;

 private:
  std::int64_t examples_, level_;
};

}  // namespace whence::detail
