#pragma once
#include "whence/attribution/measurement.h"
#include "whence/core/progress.h"
#include "whence/stages/stage.h"

namespace whence {

/// The truth that scores predict: what the measurements become when examples of one stage weigh otherwise, by
/// minimising that stage and every later one again. Each training starts at the chain's own parameters and runs under
/// the stage's optimizer, or under `optimizer` where one is given.
///
/// `weights` [M, N] holds one row of example weights a retraining (1 keeps, 0 leaves out; the mean stays over N).
/// Returns [M, Q] float64. Retrainings run side by side on threads(). Throws NumericalError where a training leaves the
/// finite numbers.
struct Retraining {
  at::Tensor measurements;  ///< [M, Q] float64.
  double largest_gradient_norm =
      0;                         ///< |grad Phi| at the end, the worst over all trainings: how converged the truth is.
  std::int64_t unconverged = 0;  ///< Trainings that did not meet their tolerance.
};
Retraining retrain(const Chain& chain, std::size_t stage, const at::Tensor& weights, const Dataset& queries,
                   Measurement measurement, const Optimizer* optimizer, const Random& random, const Progress& progress);

/// What one retraining takes.
struct RetrainingTime {
  double seconds = 0;  ///< At least.
  double at_most = 0;  ///< The same where it was not cut off; NaN where stages were left untried.
};
/// Times the retraining with `weights` [N], for at most about `limit` seconds.
RetrainingTime time_retraining(const Chain& chain, std::size_t stage, const at::Tensor& weights,
                               const Optimizer* optimizer, const Random& random, double limit);

/// `count` rows of a stage spread evenly over the order of their mean score over the queries, both ends included.
/// `scores` is [Q, N]; returns [count] int64, or all rows where N is smaller.
at::Tensor rows_across_scores(const at::Tensor& scores, std::int64_t count);

/// Weights [M, N] of leaving one row out at a time.
at::Tensor leave_one_out_weights(const at::Tensor& rows, std::int64_t examples);
/// Weights [M, N] of M random subsets with `fraction` of the examples each: 1 / fraction inside, so that the mean is
/// the subset's own.
at::Tensor subset_weights(std::int64_t subsets, std::int64_t examples, double fraction, Random random);

}  // namespace whence
