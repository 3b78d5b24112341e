#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "whence/core/random.h"
#include "whence/stages/stage.h"

namespace whence {

/// A stage with the labels of some examples changed to other classes, each drawn evenly. Throws InvalidArgument where
/// the stage's targets are no classes, or of fewer than two, or the stage is primed. The
/// result shares the model, the loss and the tuning of `stage`, whose owner must outlive it.
struct MislabelledStage {
  Stage stage;         ///< As `stage` was, its data apart.
  at::Tensor flipped;  ///< [N] bool.
};
MislabelledStage mislabel(const Stage& stage, double fraction, Random random);

/// The share of the `wanted` ([N] bool) that is among the first `share` of the examples by falling score, ties in the
/// order of the examples.
double found_among_first(const at::Tensor& scores, const at::Tensor& wanted, double share);

/// How soon a list by falling score comes to its sources.
struct Recall {
  double reciprocal_rank = 0;  ///< 1 / the rank of the first.
  std::vector<double> recall;  ///< One for each k: the share of the sources among the first k.
};
/// `sources` [N] bool, at least one. An example that ties with a source is ranked before it.
Recall recall_of(const at::Tensor& scores, const at::Tensor& sources, const std::vector<std::int64_t>& ks);

}  // namespace whence
