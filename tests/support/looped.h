#pragma once
#include <ATen/ATen.h>

#include <functional>

#include "whence/attribution/measurement.h"
#include "whence/stages/stage.h"

namespace whence::test {

/// Gradients of one number of each example, in the merged parameters of a stage, one backward pass each: [N, entries].
inline at::Tensor looped_gradients(const Stage& stage, const Dataset& data,
                                   Measurement measurement = Measurement::kLoss, bool with_head = true) {
  const auto merged = stage.objective.merge(stage.theta, stage.parent);
  TensorList rows;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const auto point = leaves(merged.values());
    const auto batch = data.batch(i, i + 1);
    const auto output = stage.objective.model().output(merged.with(point), batch);
    const auto all = merged.with(gradient(measure(measurement, stage.objective.loss(), output, batch).sum(), point));
    rows.push_back(flatten((with_head ? all : stage.objective.model().head().body(all)).values()));
  }
  return at::stack(rows);
}

}  // namespace whence::test
