#pragma once
#include <functional>
#include <string_view>

#include "whence/training/stacked.h"
#include "whence/training/steps.h"

namespace whence::detail {

/// The options that all optimizers by minibatch share. Their structs pass `field` on to this one's fields.
struct MinibatchOptions {
  double learning_rate;
  std::int64_t epochs = 20;
  std::int64_t max_iterations = 0;
  std::int64_t batch_size = 64;
  std::string schedule = "cosine";
  std::int64_t warm_up = 0;
  double tolerance = 0;
  double clip = 0;
  std::int64_t micro_batch = 0;
  std::string compute = "as-parameters";

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("learning-rate", self.learning_rate, kPositive, "length of a step before the schedule");
    field("epochs", self.epochs, kAtLeastOne, "passes over the data");
    field("max-iterations", self.max_iterations, kAtLeastZero, "steps, in place of epochs; 0: by epochs");
    field("batch-size", self.batch_size, kAtLeastOne,
          "examples a step, of a primed stage tasks; all where there are fewer");
    field("schedule", self.schedule, OneOf{"constant|linear|cosine"},
          "how the learning rate falls to 0 after the warm-up");
    field("warm-up", self.warm_up, kAtLeastZero, "steps over which the learning rate rises from 0");
    field("tolerance", self.tolerance, kAtLeastZero,
          "stop at |grad Phi| of at most this, looked at after each epoch; 0: never");
    field("clip", self.clip, kAtLeastZero, "a longer gradient is shortened to this; 0: never");
    field("micro-batch", self.micro_batch, kAtLeastZero,
          "examples that go through the model at a time, their gradients accumulating over a step; 0: by --batch-size");
    field("compute", self.compute, OneOf{"as-parameters|bfloat16"},
          "bfloat16: passes of the steps in bfloat16, parameters and moments as they are (mixed precision)");
  }
};

/// What an optimizer does with a minibatch's gradient: replaces state.theta and state.memory, writing to no tensor in
/// them, and adds to state.time. `learning_rate` is that of this step; state.iteration counts the steps before it.
using MinibatchStep = std::function<void(TrainingState& state, const TensorList& gradient, double learning_rate)>;

/// Such a step backwards: TrainingSteps::pull_back of a gradient that was not clipped.
using MinibatchPullBack = std::function<at::Tensor(const TrainingState& before, const TensorList& gradient,
                                                   double learning_rate, StepAdjoint& adjoint)>;

/// StackedTraining::stacks of steps that treat every entry alike.
bool stacks(const MinibatchOptions& options);

/// The learning rate of step `iteration` of `total`: linear warm-up, then the schedule. I. Loshchilov and F. Hutter,
/// "SGDR", ICLR 2017, for cosine.
double scheduled_rate(const MinibatchOptions& options, std::int64_t iteration, std::int64_t total);

/// Optimizer::planned_iterations for those that step along minibatches' gradients.
std::int64_t planned_iterations(const MinibatchOptions& options, std::int64_t examples);

/// The sum of the learning rates of a training that goes on to its planned end.
double planned_time(const MinibatchOptions& options, std::int64_t examples);

/// Optimizer::iterations_an_epoch likewise.
std::int64_t iterations_an_epoch(const MinibatchOptions& options, std::int64_t terms);

/// The steps along minibatches' gradients (1/|B|) sum_B w_i grad loss_i + grad penalty, whose mean over an epoch's
/// random orders is grad Phi. `name` begins the messages.
class MinibatchSteps : public TrainingSteps {
 public:
  MinibatchSteps(std::string_view name, const MinibatchOptions& options, const Objective& objective,
                 const TensorList& parent, const Random& random, MinibatchStep step, MinibatchPullBack pull_back);

  /// Optimizer::minimise by these steps.
  TrainingSummary minimise(TrainingState& state, const Progress& progress) const;
  /// StackedTraining::minimise_all by these steps.
  TensorList minimise_all(const TensorList& theta, const at::Tensor& weights, const Progress& progress) const;
  at::Tensor terms(std::int64_t iteration) const override;
  StepTaken advance(TrainingState& state) const override;
  at::Tensor pull_back(const TrainingState& before, const StepTaken& taken, StepAdjoint& adjoint) const override;

 private:
  /// A part of a minibatch's objective: of a batch its loss, of none the penalty.
  using Part = std::function<at::Tensor(const Batch*)>;
  /// The minibatch's objective and its gradient at theta, as many terms at once as memory is meant for.
  StepTaken slope(const at::Tensor& which, const TensorList& theta, const Part& part) const;
  void check_finite(const StepTaken& taken, std::int64_t iteration) const;

  std::string name_;
  MinibatchOptions options_;
  Objective objective_, computing_;
  TensorList parent_;
  Random random_;
  MinibatchStep step_;
  MinibatchPullBack pull_back_;
  std::int64_t batch_size_, per_epoch_, count_;
  mutable std::int64_t epoch_ = -1;
  mutable at::Tensor order_;  // of that epoch's terms
};

/// "loss 0.2131, |gradient| 3.1e-05": the detail of a progress event.
std::string progress_detail(double loss, double gradient_norm);

}  // namespace whence::detail
