#pragma once
#include <functional>
#include <optional>

#include "whence/attribution/measurement.h"
#include "whence/core/progress.h"
#include "whence/stages/stage.h"

namespace whence {

/// A stage as its training begins, on the stages before it, retrained ones among them. Called on several threads.
using BeginStage = std::function<Stage(std::size_t stage, const Chain& before)>;

/// What one retraining leaves.
struct RetrainingOutcome {
  at::Tensor measurements;       ///< [Q] float64.
  double gradient_norm = 0;      ///< |grad Phi| at the end, the worst over its trainings.
  std::int64_t unconverged = 0;  ///< Trainings that did not meet their tolerance.
};
/// Where outcomes are kept between runs, by the example weights [N]. `load` is called on the calling thread, `save` on
/// any, one at a time. Null functions keep nothing.
struct RetrainingCache {
  std::function<std::optional<RetrainingOutcome>(const at::Tensor& weights)> load;
  std::function<void(const at::Tensor& weights, const RetrainingOutcome& outcome)> save;
  std::function<bool(const at::Tensor& weights)> has = {};  ///< Whether load() would find one; it is not read.
};

/// What M retrainings leave.
struct Retraining {
  at::Tensor measurements;           ///< [M, Q] float64.
  double largest_gradient_norm = 0;  ///< |grad Phi| at the end, the worst over all trainings: how converged they are.
  std::int64_t unconverged = 0;      ///< Trainings that did not meet their tolerance.
};
/// The truth that scores predict: what the measurements become when examples of one stage weigh otherwise, by
/// minimising that stage and every later one again. Each training starts at the chain's own parameters, or, as the
/// chain's own training did, where `begin` says, and runs under the stage's optimizer, or under `optimizer` where one
/// is given. `random` draws the order of minibatches; with `begin` it is the source whose stream "training of stage
/// NAME" draws a stage's, so that the pipeline's own seed and weights of 1 give the chain again.
///
/// `weights` [M, N] holds one row of example weights a retraining (1 keeps, 0 leaves out; the mean stays over N).
/// Retrainings run side by side on threads(); those of the last stage, where it is small, of dense layers and trained
/// by sgd or adam (StackedTraining::stacks), also on one thread as a stack of models, which ends where each alone
/// would, within rounding. Throws NumericalError where a training leaves the finite numbers.
Retraining retrain(const Chain& chain, std::size_t stage, const at::Tensor& weights, const Dataset& queries,
                   Measurement measurement, const Optimizer* optimizer, const Random& random, const Progress& progress,
                   const BeginStage& begin = {}, const RetrainingCache& cache = {});

/// What one retraining takes.
struct RetrainingTime {
  double seconds = 0;  ///< At least.
  double at_most = 0;  ///< The same where it was not cut off; NaN where stages were left untried.
};
/// Times a retraining with `weights` [N], as one of so many `trainings` as retrain() makes them, for at most about
/// `limit` seconds.
RetrainingTime time_retraining(const Chain& chain, std::size_t stage, const at::Tensor& weights, std::int64_t trainings,
                               const Optimizer* optimizer, const Random& random, double limit,
                               const BeginStage& begin = {});

/// `count` rows of a stage spread evenly over the order of their mean score over the queries, both ends included.
/// `scores` is [Q, N]; returns [count] int64, or all rows where N is smaller.
at::Tensor rows_across_scores(const at::Tensor& scores, std::int64_t count);

/// Weights [M, N] of leaving one row out at a time.
at::Tensor leave_one_out_weights(const at::Tensor& rows, std::int64_t examples);
/// Weights [1, N] of training without these rows: more of the others, so that the mean is their own.
at::Tensor removal_weights(const at::Tensor& rows, std::int64_t examples);
/// Weights [M, N] of M random subsets with `fraction` of the examples each: 1 / fraction inside, so that the mean is
/// the subset's own.
at::Tensor subset_weights(std::int64_t subsets, std::int64_t examples, double fraction, Random random);

}  // namespace whence
