#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "whence/attribution/attributor.h"
#include "whence/attribution/measurement.h"
#include "whence/store/score_sink.h"

namespace whence {

/// Where solved vectors are kept between an interrupted run and the next. Null functions keep nothing.
struct VectorCache {
  std::function<std::optional<ParameterSet>(const std::string& block)> load;
  std::function<void(const std::string& block, const ParameterSet& vectors)> save;
};

/// What is scored, for whom, and where the scores go.
struct AttributionTask {
  const Chain& chain;
  std::vector<std::size_t> stages;  ///< Whose examples are scored, in rising order.
  std::vector<ScoreSink*> sinks;    ///< One a scored stage.
  const Dataset& queries;
  Measurement measurement = Measurement::kLoss;
  std::int64_t query_block =
      32;  ///< Queries that are solved for together. Memory: about 8 vectors of the parameters each.
  Normalization normalization = Normalization::kNone;  ///< kNone: the method's own, if it has one.
};

/// The solves at one stage, one summary a query (none for methods that solve nothing).
struct AttributionSolves {
  std::string stage;
  std::vector<SolverSummary> summaries;
  double products = 0;  ///< Operator products with one vector, what made the source ready included.
};

/// Scores every example of the task's stages against every query. Positive: upweighting the example raises the
/// measurement; methods that claim so much, not normalized, say by score / N for a whole unit of weight.
///
/// Cost: for each block of queries, the method's solves, and for most methods one forward and backward pass over the
/// stage's data with one product a query and example; another where scores are normalized. Cells that a sink already
/// has are skipped. Returns the solves from the first scored stage to the last of the chain, those too whose vectors
/// the cache had.
std::vector<AttributionSolves> attribute(const AttributionTask& task, ScoreSource& source, const VectorCache& cache,
                                         const Progress& progress);

/// Per-token scores of texts that attribute() scored, with the vectors that its cache holds, or with new ones.
class TokenScorer {
 public:
  /// All must outlive the scorer.
  TokenScorer(const AttributionTask& task, ScoreSource& source, const VectorCache& cache)
      : task_(task), source_(source), cache_(cache) {}
  /// What each token of the example in row `row` adds to its score for the query in row `query`, before any
  /// normalization: [tokens] float64 on the CPU. Undefined where the method does not say or the examples are no texts.
  /// Cheap where queries come in order. Cost: a forward and a backward pass of the text; where the cache has no vectors
  /// the solves of each block of queries.
  at::Tensor scores(std::size_t stage, std::int64_t query, std::int64_t row);

 private:
  const AttributionTask& task_;
  ScoreSource& source_;
  const VectorCache& cache_;
  std::int64_t block_ = -1;
  std::vector<QueryDirections> directions_;
  std::map<std::size_t, std::unique_ptr<Scorer>> scorers_;
};

/// Scores of a whole stage in memory: [queries, examples]. For small problems and tests.
at::Tensor score_matrix(const Chain& chain, std::size_t stage, ScoreSource& source, const Dataset& queries,
                        Measurement measurement, Normalization normalization = Normalization::kNone);

}  // namespace whence
