#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "whence/training/objective.h"
#include "whence/training/optimizer.h"
#include "whence/training/priming.h"

namespace whence {

/// Where training stood at the end of one of the equally long segments that it was cut into.
struct Snapshot {
  TensorList theta;
  TensorList preconditioner;   ///< Optimizer::preconditioner, as it was here; empty where steps follow the gradient.
  double time = 0;             ///< Of the segment's steps: the sum of the learning rates, divided by 1 - momentum.
  std::int64_t steps = 0;      ///< Of the segment.
  std::int64_t iteration = 0;  ///< Steps since training began.
  double total_time = 0;       ///< The like of time since then.
};

/// A stationarity that was measured before, and of what.
struct MeasuredStationarity {
  std::string of;  ///< stationarity_key() then.
  Stationarity value;
};

/// One training run: theta is where minimising objective(theta; parent) stopped, parent the body that the stage before
/// handed on (empty at the first, unless it tunes a model that was trained elsewhere).
struct Stage {
  std::string name;
  Objective objective;
  std::shared_ptr<const Optimizer> optimizer;
  TensorList theta;
  TensorList parent;
  std::vector<Snapshot> trajectory = {};  ///< In order, the last at theta; empty where none was kept.
  /// What training measured at its end; stationarity() answers by it as long as nothing it rests on is otherwise.
  std::optional<MeasuredStationarity> measured = {};
  double inverse_time = 0;  ///< Of its training (training/optimizer.h); 0: not known, or no steps made it.

  /// The body that the next stage starts from.
  ParameterSet handed_on() const { return objective.hand_on(theta, parent); }
};

/// Stages in the order in which they were trained: each one's parent is what the one before handed on.
using Chain = std::vector<Stage>;

/// What a stage is made of.
struct StageParts {
  std::string name;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Loss> loss;
  std::shared_ptr<const Tuning> tuning = create<Tuning>("full");
  std::shared_ptr<const Optimizer> optimizer = create<Optimizer>("lbfgs");
  Dataset data;
  double weight_decay = 0;
  std::int64_t batch_size = 1024;
  /// Not null: the stage is primed. It trains the body alone, on tasks, each of which the priming's inner tuning and a
  /// new head adapt to from one start; these are dropped at its end.
  std::shared_ptr<const Priming> priming = {};
  std::vector<std::string> tasks = {};  ///< Of a primed stage, the task of each example by name: [N].
  /// The model starts from weights that were trained elsewhere: to a first stage whose tuning remembers a parent, their
  /// body is what a stage before would have handed on.
  bool starts_trained = false;
};

/// A stage as its training begins: the first of a chain, or, on the last of `before`, the next. Its parameters have the
/// dtype and device of its data. `random` draws those that are new: a first stage's all, a later one's head; of a
/// primed stage also where its inner loop starts and which of a task's examples that sees. Throws InvalidArgument,
/// naming the stage, where a part is missing or the model, the data, the tuning and what the stage before hands on do
/// not fit together, check_room() included, or the tuning's ensemble has no mean prediction for the loss's targets.
Stage begin_stage(StageParts parts, const Chain& before, Random random);

/// Throws InvalidArgument, naming the stage, where the longest of the texts has no room in the model's context behind
/// the prefix or prompt of the stage or of those before.
void check_room(const Stage& stage, const Dataset& texts);

/// Puts Optimizer::inverse_time() of a training that ended at `state` into its summary, for where what it kept was.
void tell_inverse_time(const Optimizer& optimizer, const TrainingState& state, TrainingSummary& summary);

/// The iterations that end each of `count` equal segments, at whose ends snapshots are kept, of a training of so many
/// terms by an optimizer. Throws InvalidArgument where it takes fewer iterations, or no number that is known before.
std::vector<std::int64_t> segment_ends(std::string_view optimizer, std::int64_t terms, std::int64_t count);

/// Trains a stage by its optimizer, from where theta is to the end. `random` draws the order of minibatches. Its
/// trajectory becomes where it was after the iterations `kept_after`, which rise. Throws what Optimizer::minimise
/// throws; theta and trajectory are then as they were.
TrainingSummary train(Stage& stage, const Random& random, const Progress& progress = {},
                      const std::vector<std::int64_t>& kept_after = {});

/// How far the stage's theta is from a minimum of its objective. Throws what in_stage() makes where that is not finite.
/// Cost: that of stationarity(objective, …), or of stationarity_key() where the stage says what it was.
Stationarity stationarity(const Stage& stage);
/// A digest of all that a stage's stationarity rests on: objective, theta and parent. Cost: 0.5 to 2 s a GB.
std::string stationarity_key(const Stage& stage);

/// An error of a stage's arithmetic that names the stage and, where its tuning has options, those.
NumericalError in_stage(const Stage& stage, const NumericalError& error);

/// What keeps influence from going through the chain, a sentence for each: a stage that hands nothing on, or whose
/// objective uses nothing of the stage before. Reads no data and no weights.
std::vector<std::string> disconnections(const Chain& chain);

}  // namespace whence
