#pragma once
#include "whence/stages/stage.h"

namespace whence::test {

/// d measured / d merged parameters of the chain's last stage, of its first example's loss: one direction.
inline Directions measured_gradient(const Chain& chain) {
  const auto& last = chain.back();
  const auto merged = last.objective.merge(last.theta, last.parent);
  const auto point = leaves(merged.values());
  const auto batch = last.objective.data().batch(0, 1);
  const auto loss = last.objective.loss().per_example(last.objective.model().output(merged.with(point), batch), batch);
  return directions_of(flatten(gradient(loss.sum(), point)).unsqueeze(0), merged);
}

}  // namespace whence::test
