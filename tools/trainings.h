#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cli.h"
#include "json.h"
#include "whence/evaluate/retraining.h"

namespace whence::cli {

/// The retrainings that an evaluation compares with, of a pipeline's stage: kept in a bank, with the pipeline's own
/// seed or others.
class Trainings {
 public:
  struct What {
    const Pipeline& pipeline;
    const Chain& chain;
    std::size_t stage;
    const Dataset& queries;
    Measurement measurement;
    std::string optimizer;       ///< Spec; empty: each stage's own.
    bool from_start;             ///< Else from the chain's own parameters.
    std::filesystem::path bank;  ///< The folder.
  };
  explicit Trainings(What what);

  /// Why the start of the stage's training, or a later one's, is not known; empty where it is.
  static std::string unknown_start(const Pipeline& pipeline, const Chain& chain, std::size_t stage);

  /// Trains with each row of `weights` [M, N]; `other` 0 is the pipeline's own seed, others those that follow it.
  Retraining run(const at::Tensor& weights, std::uint64_t other, const Progress& progress);
  /// How many of them the bank lacks.
  std::int64_t missing(const at::Tensor& weights, std::uint64_t other);
  /// What one of so many trainings takes, from one of at most about `limit` seconds.
  RetrainingTime time(std::int64_t trainings, double limit);
  /// A stage as its training with the pipeline's own seed begins.
  Stage begin(std::size_t stage, const Chain& before);
  /// Trains what begin() gave, its objective another one perhaps, as the stage was trained; or takes from the bank what
  /// that became, which holds none with snapshots.
  TrainingSummary train(Stage& stage, const Progress& progress);
  /// The name of a stage that was trained elsewhere while nothing says by which optimizer, so that it is trained on to
  /// a minimum; empty where there is none.
  std::string untold() const;
  /// Throws InvalidArgument, with what to write, where there is one and a training with every example, which the bank
  /// keeps, ends far from the checkpoint: others would say nothing of it either.
  void check_reference(const Progress& progress);
  /// How far a training with every example, whose measurements these are [Q], ends from the chain's own parameters: the
  /// difference of the measurements, of their size.
  double apart(const at::Tensor& measurements) const;
  /// What evaluation.json says of them: where they begin, and where they go on by steps from a checkpoint that others
  /// made or that another optimizer did, by which, and whether that is the stage's own.
  Json told() const;
  const Chain& chain() const { return what_.chain; }
  std::size_t stage_index() const { return what_.stage; }
  const Stage& stage() const { return what_.chain[what_.stage]; }
  const Dataset& queries() const { return what_.queries; }
  /// What draws the trainings of a seed.
  Random random(std::uint64_t other) const;
  bool from_start() const { return what_.from_start; }
  /// "start" or "checkpoint".
  const char* word() const { return what_.from_start ? "start" : "checkpoint"; }

 private:
  struct Seed {
    std::shared_ptr<const Pipeline> pipeline;  ///< Of another seed; null: the own one.
    Random random;
    BeginStage begin;
    RetrainingCache cache;
  };
  Seed seed(std::uint64_t other);
  std::string key(std::uint64_t seed) const;

  const What what_;
  std::unique_ptr<Optimizer> optimizer_;
  std::string base_key_;
};

/// What so many trainings take, by one of them.
struct TrainingsTime {
  RetrainingTime one;
  std::int64_t at_once = 1;
  double seconds = 0;  ///< At most, where that is known; else at least.
  std::string told;    ///< "about 5 minutes", "more than about 5 minutes".
};
/// Times one of at most about 20 seconds.
TrainingsTime time_trainings(Trainings& trainings, std::int64_t missing, const Progress& progress);
/// Throws InvalidArgument, which ends in `remedy`, where that is more than the ten minutes that nobody is asked about.
void check_patience(const TrainingsTime& time, std::int64_t missing, const std::string& remedy);

/// What an optimizer looks like, to whoever is asked for one.
inline constexpr const char* kOptimizerExample = "adamw:learning-rate=1e-4,epochs=3,batch-size=32";
/// "say how it was trained …": what to write into the pipeline of a stage from elsewhere.
std::string say_optimizer_text(const std::string& stage);

/// Whether the retrainings that judge a ranking begin where the chain's own training began, with its minibatches: if
/// steps took a stage from `stage` on to no minimum and all starts are known, as to go on from there would be another
/// training. Else they begin at the chain's parameters, from which a minimum is soon found again.
bool judged_from_start(const Pipeline& pipeline, const Chain& chain, std::size_t stage);

}  // namespace whence::cli
