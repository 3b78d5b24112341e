#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "whence/attribution/attributor.h"
#include "whence/stages/unrolled.h"

namespace whence {

/// Influence through training itself (stages/unrolled.h), where other responses invert a curvature. What it makes of a
/// block of queries are no vectors but the scores of all of a stage's examples, which scorers hand out. -score / N is a
/// removal, as influence's is.
class UnrolledSource : public ScoreSource {
 public:
  UnrolledSource(const Chain& chain, std::vector<TrainingRun> runs);

  void check(const std::vector<std::size_t>& stages, Measurement measurement,
             Normalization normalization) const override;
  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress& progress) override;
  std::unique_ptr<Scorer> scorer(std::size_t stage, const QueryDirections& directions, const Progress&) override;
  /// There are none.
  at::Tensor example_norms(std::size_t stage, const Batch& batch, Normalization normalization) override;
  std::vector<std::string> parameters(std::size_t stage) const override;
  MethodCost cost(std::size_t stage, std::int64_t query_block) const override;
  /// The first steps of every training are gone, and the queries taken through them, twice; the steps are alike.
  std::optional<Foretold> rehearse(const QueryBlock& queries, const std::vector<std::size_t>& stages) const override;

  const std::vector<UnrolledEvidence>& steps() const { return unrolled_.evidence(); }

 private:
  const Chain chain_;
  const std::vector<TrainingRun> runs_;
  Unrolled unrolled_;
};

/// The attributor of it, of trainings that `runs` knows, one a stage of the chain it is given.
class UnrolledInfluence : public Attributor {
 public:
  using Runs = std::function<std::vector<TrainingRun>(const Chain& chain)>;
  explicit UnrolledInfluence(Runs runs) : runs_(std::move(runs)) {}

  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kRemoval; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<UnrolledSource>(chain, runs_(chain));
  }

 private:
  Runs runs_;
};

}  // namespace whence
