#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace whence {

/// The same computation for K models at once. While it lives, on its thread, what is computed with one() of stacks is
/// computed for each of their parts, operation by operation, as torch.func.vmap does: code for one model serves K.
/// Autograd, asked for afterwards, follows the stacks. Operations that write into a tensor of no stack, or that need
/// numbers out of one (item()), throw c10::Error.
class SideBySide {
 public:
  explicit SideBySide(std::int64_t count);
  ~SideBySide();
  SideBySide(const SideBySide&) = delete;
  SideBySide& operator=(const SideBySide&) = delete;

  /// A stack [K, ...] as each of its parts, [...].
  at::Tensor one(const at::Tensor& stack) const;
  /// What was computed for each, [...], as a stack [K, ...]; K times the same where no stack went into it.
  at::Tensor all(const at::Tensor& each) const;

 private:
  std::int64_t count_, level_;
};

}  // namespace whence
