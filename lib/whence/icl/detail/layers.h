#pragma once
#include <memory>

#include "whence/icl/ridge_view.h"
#include "whence/icl/state_kernel.h"

namespace whence::detail {

/// What the demonstrations [n, C] and the queries [q, C] are regressed on, float64 on the CPU: the task's targets, or
/// its labels as one-hot rows, of NaN for a label of -1.
at::Tensor targets_of(const IclTask& task);
at::Tensor query_targets_of(const IclTask& task);

/// A task's hidden states as the ridge view takes them: float64 on the CPU, projected, mapped by the kernel. Refers to
/// the task.
class Layers {
 public:
  /// Throws what ridge_scores() throws of the options, the labels and the states.
  Layers(const IclTask& task, const RidgeOptions& options);

  struct Layer {
    FittedKernel kernel;
    at::Tensor features;  // [n, w], of the demonstrations
  };
  std::int64_t count() const { return task_.states.size(0); }
  Layer fit(std::int64_t index) const;
  /// [length, w], of queries begin .. begin + length - 1.
  at::Tensor query_features(std::int64_t index, const Layer& layer, std::int64_t begin, std::int64_t length) const;

 private:
  at::Tensor rows(const at::Tensor& states) const;

  const IclTask& task_;
  std::unique_ptr<StateKernel> kernel_;
  at::Tensor projection_;
};

}  // namespace whence::detail
