#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cli.h"
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
  /// What one takes, from one training of at most about `limit` seconds.
  RetrainingTime time(double limit);
  /// A stage as its training with the pipeline's own seed begins.
  Stage begin(std::size_t stage, const Chain& before);

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

/// Where the retrainings that judge a ranking begin.
struct RetrainingStart {
  BeginStage begin = {};  ///< Null: at the chain's own parameters.
  Random random;          ///< What draws their minibatches.

  const char* word() const { return begin ? "start" : "checkpoint"; }
};
/// Where the chain's own training began, with its minibatches, if steps took a stage from `stage` on to no minimum and
/// all starts are known: to go on from there would be another training. Else at the chain's parameters, from which a
/// minimum is soon found again. `pipeline` has to outlive the result.
RetrainingStart retraining_start(const Pipeline& pipeline, const Chain& chain, std::size_t stage);

}  // namespace whence::cli
