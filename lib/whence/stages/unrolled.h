#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "whence/core/progress.h"
#include "whence/core/random.h"
#include "whence/curvature/curvature.h"
#include "whence/stages/stage.h"
#include "whence/training/steps.h"

namespace whence {

class Pipeline;

/// Where a stage's training began and how it went, of which a chain tells nothing.
struct TrainingRun {
  std::function<TensorList()> start = {};               ///< Makes theta then. Null: not known.
  std::string unknown = "where it began is not known";  ///< Why, then.
  Random random = Random(0);                            ///< That drew the order of minibatches.
  std::int64_t iterations = 0;                          ///< After how many theta is the stage's.
};

/// What was found at a stage whose training was gone again.
struct UnrolledEvidence {
  std::int64_t steps = 0;        ///< 0: it was not.
  double replay_difference = 0;  ///< |theta it came to - the stage's| / |the stage's|; 0: the same bits.
  double growth = 0;             ///< The most that a query's adjoint grew on its way back, over its length at the end.
};

/// The runs of a chain that a pipeline loaded, from the stage `first` on: what its checkpoints say of their training,
/// and where it began, which is made when it is asked for: `pipeline` has to outlive the result.
std::vector<TrainingRun> training_runs(const Pipeline& pipeline, const Chain& chain, std::size_t first);

/// Carries gradients of measurements at the last stage back through the very steps of every stage's training: scores
/// are derivatives of what training with these minibatches, from this start, comes to, whether it reached a minimum or
/// not. Reverse mode through training: D. Maclaurin, D. Duvenaud and R. Adams, "Gradient-based Hyperparameter
/// Optimization through Reversible Learning", ICML 2015; A. Ilyas and L. Engstrom, "MAGIC: Near-Optimal Data
/// Attribution for Deep Learning", 2025; through a chain: formulas.md 10.
///
/// Training is gone again from its start, of which sqrt(T) states are kept, and their segments again as the sweep comes
/// to them, whose states are held meanwhile. Cost: a training to make ready; for a block of queries another, with a
/// Hessian product and a per-sample product of all of them at every step.
class Unrolled {
 public:
  Unrolled(Chain chain, std::vector<TrainingRun> runs);

  /// Throws InvalidArgument, naming the stage and what to type, before any work, where one from `first` on went no
  /// steps, its start is not known, or is made of the stage before in another way than entry by entry.
  void check(std::size_t first) const;

  /// Goes the training of the stages from `first` on again. Throws what check() does, and InvalidArgument where it does
  /// not come, but for rounding, to where the stage stands.
  void prepare(std::size_t first, const Progress& progress = {});

  /// As Adjoint::sweep(). For each of `stages` (rising) the scores N df/dw_i of its examples, [K, N] in the algebra
  /// type of its parameters. Throws NumericalError, naming stage and step, where an adjoint is not finite.
  std::vector<at::Tensor> sweep(const Directions& gradients, const std::vector<std::size_t>& stages,
                                const Progress& progress);

  const std::vector<UnrolledEvidence>& evidence() const { return evidence_; }

 private:
  struct Replay {
    std::unique_ptr<TrainingSteps> steps;
    std::vector<TrainingState> kept;  ///< At every stride-th iteration from the first on.
    std::int64_t stride = 1;
    std::size_t lists = 0;  ///< Of the optimizer's memory.
  };
  std::unique_ptr<TrainingSteps> steps_of(std::size_t stage) const;
  const Replay& replay(std::size_t stage, const Progress& progress);
  at::Tensor unroll(std::size_t stage, at::Tensor& of_theta, at::Tensor* of_parent, bool scored,
                    const Progress& progress);

  const Chain chain_;
  const std::vector<TrainingRun> runs_;
  std::shared_ptr<const Curvature> hessian_;
  std::vector<std::unique_ptr<Replay>> replays_;
  std::vector<UnrolledEvidence> evidence_;
};

}  // namespace whence
