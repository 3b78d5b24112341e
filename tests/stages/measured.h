#pragma once
#include "whence/stages/stage.h"

namespace whence::test {

/// d measured / d merged parameters of the chain's last stage, of its first example's loss: [1, entries].
inline at::Tensor measured_gradient(const Chain& chain) {
  const auto& last = chain.back();
  const auto merged = last.objective.merge(last.theta, last.parent);
  const auto point = leaves(merged.values());
  const auto batch = last.objective.data().batch(0, 1);
  const auto loss = last.objective.loss().per_example(last.objective.model().output(merged.with(point), batch), batch);
  return flatten(gradient(loss.sum(), point)).unsqueeze(0);
}

}  // namespace whence::test
