#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "whence/core/registry.h"

namespace whence {

/// k(x, y), with what it takes from one layer's demonstrations (a mean, a bandwidth) in place. All float64.
struct FittedKernel {
  /// What stands for hidden states: [r, d] to [r, d].
  std::function<at::Tensor(const at::Tensor& states)> map;
  /// [a, b] from what map gave for a and b states. Empty: k is the inner product of the mapped rows.
  std::function<at::Tensor(const at::Tensor& x, const at::Tensor& y)> between = {};

  /// k of every pair of mapped rows: [a, b].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& y) const {
    return between ? between(x, y) : x.mm(y.t());
  }
};

/// How alike two hidden states are, in the eyes of the ridge view. Positive semi-definite.
class StateKernel {
 public:
  virtual ~StateKernel() = default;
  /// For demonstrations' hidden states [n, d] float64 of one layer.
  virtual FittedKernel fit(const at::Tensor& demonstrations) const = 0;
};

WHENCE_DECLARE_ROOM(StateKernel)

}  // namespace whence
