#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "whence/attribution/measurement.h"
#include "whence/stages/adjoint.h"

namespace whence {

/// Queries begin .. end-1 of a dataset, which are scored together, and what is measured of them.
struct QueryBlock {
  const Dataset& data;
  Measurement measurement;
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

/// What one stage's examples are scored with, for a block of K queries.
struct QueryDirections {
  std::vector<Directions> points;  ///< Of the model's parameters, at each point of the stage where gradients are taken;
                                   ///< of a method without gradients one set, whose names are its own affair.
  std::vector<SolverSummary> summaries;  ///< One a query, where a solve was made.
  /// As of core/tensors.h.
  void check_finite(const char* what) const;
};

/// What scores are divided by.
enum class Normalization {
  kNone,
  kCosine,   ///< The lengths of the query's vector and of the example's gradient.
  kRelatif,  ///< The example's length in the inverse curvature. E. Barshan et al., "RelatIF", AISTATS 2020.
};
std::string_view to_string(Normalization normalization);
/// "none", "cosine" or "relatif". Throws InvalidArgument with the known words.
Normalization parse_normalization(std::string_view word);

/// One stage's examples against one block of queries.
class Scorer {
 public:
  virtual ~Scorer() = default;
  /// [K, B], not normalized.
  virtual at::Tensor scores(const Batch& batch) const = 0;
  /// What each token of a text, the only one of `batch`, adds to its score for one query of the block: [tokens].
  /// Undefined where the method does not say.
  virtual at::Tensor token_scores(const Batch& /*batch*/, std::int64_t /*query*/) const { return {}; }
};

/// What leaving single examples out makes of a stage, to second order: with the example's own curvature taken out of
/// the stage's, of which it may be a good part. With g its loss's gradient, H its Hessian, A the curvature that is
/// inverted and u = A^-1 g, its leverage along its own removal is h = (1/N) u'Hu / u'Au and theta moves by u / N / (1 -
/// h), where a score takes 1 - h for 1. Exact for linear models with one output, where h is the leverage of the
/// regression. R. Cook, "Detection of Influential Observation in Linear Regression", 1977; P. W. Koh et al., "On the
/// Accuracy of Influence Functions for Measuring Group Effects", NeurIPS 2019.
struct LeaveOuts {
  at::Tensor leverages;     ///< [M] float64.
  at::Tensor moves;         ///< [M, P] of the trained parameters.
  bool from_below = false;  ///< The inverse was approximated: the leverages are at least these.
};

/// What a method costs, in units that a caller can measure.
struct MethodCost {
  double passes_once = 0;        ///< Gradients of all the stage's examples, whatever the queries.
  double passes_a_block = 0;     ///< The same, for each block of queries.
  double gradients_a_query = 0;  ///< Gradients of one query.
  double bytes = 0;              ///< Held at once, beside the model, the data and one batch's graph.
  double bytes_a_query = 0;      ///< Of the vectors that an interrupted run keeps on disk.
};

/// What scoring blocks of queries takes, told of a part of it.
struct Foretold {
  double peak_bytes = 0;
  double seconds_once = 0;     ///< For what does not depend on the queries.
  double seconds_a_block = 0;  ///< For each block of them.
};

/// An attribution method at work on one chain. What does not depend on the queries is made once, when it is first
/// needed.
class ScoreSource {
 public:
  virtual ~ScoreSource() = default;
  /// Throws InvalidArgument, with the remedy, where the method cannot score those stages' examples so.
  virtual void check(const std::vector<std::size_t>& stages, Measurement measurement,
                     Normalization normalization) const = 0;
  /// Makes what does not depend on the queries, of all that the scores of `stages` (rising) take, so that evidence()
  /// tells of it before long work begins. directions() does it where this was not called.
  virtual void make_ready(const std::vector<std::size_t>& /*stages*/) {}
  /// One entry a stage of the chain. Those in `stages` (rising) have vectors; all from the first of them on may have
  /// summaries.
  virtual std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                                  const Progress& progress) = 0;
  /// Takes note that an earlier run made the directions of these queries.
  virtual void pass_over(const QueryBlock& /*queries*/) {}
  /// Scores with what directions() gave for the stage, in this run or an earlier one. Not to outlive the source.
  virtual std::unique_ptr<Scorer> scorer(std::size_t stage, const QueryDirections& directions,
                                         const Progress& progress) = 0;
  /// What the normalization divides the scores of each example by: [B] float64.
  virtual at::Tensor example_norms(std::size_t stage, const Batch& batch, Normalization normalization) = 0;
  /// For a chain of one stage: the scores of a batch of its examples for their own losses, [B] float64, without a
  /// direction for each; null where the method has no shorter way than directions() and scorer().
  virtual std::function<at::Tensor(const Batch&)> self_scorer() { return {}; }
  /// What leaving out each of the examples `rows` [M] alone makes of a stage, for at most `passes` forward passes over
  /// its data, where a solve of the method takes `products` products with the curvature: exactly, or from below, or
  /// null where nothing can be had for that, or the method has no inverse curvature.
  virtual std::optional<LeaveOuts> leave_out(std::size_t /*stage*/, const at::Tensor& /*rows*/, double /*products*/,
                                             double /*passes*/) {
    return std::nullopt;
  }
  /// What is done where the caller asks for no normalization.
  virtual Normalization own_normalization() const { return Normalization::kNone; }
  /// One entry a stage; empty where nothing is assumed of the curvature.
  virtual std::vector<StageEvidence> evidence() { return {}; }
  /// The model's parameters that the scores of a stage's examples look at.
  virtual std::vector<std::string> parameters(std::size_t stage) const = 0;
  /// Of scoring one stage, solves apart.
  virtual MethodCost cost(std::size_t stage, std::int64_t query_block) const = 0;
  /// What scoring the examples of `stages` (rising) will take for blocks of queries like this one, by a rehearsal of
  /// its own of seconds; null where the method's work on a part of the data tells of all.
  virtual std::optional<Foretold> rehearse(const QueryBlock& /*queries*/,
                                           const std::vector<std::size_t>& /*stages*/) const {
    return std::nullopt;
  }
};

/// What scores say where everything holds that a method assumes.
enum class Claim {
  kRemoval,  ///< -score / N is the change of the measurement, in its unit, when the example is left out.
  kOrder,    ///< Which examples speak for the query's outcome and which against it, and which of them more.
  kNothing,  ///< A baseline for the others.
};

/// A way to say which examples a prediction comes from. Every method keeps the sign of a score: positive, upweighting
/// the example raises the measurement.
class Attributor {
 public:
  virtual ~Attributor() = default;
  virtual bool uses_curvature() const = 0;
  /// Of the scores as they are.
  virtual Claim claim() const = 0;
  /// Whether it draws at random by the names of layers: to call them otherwise is another draw.
  virtual bool draws_by_names() const { return false; }
  /// Whether -score / N is a predicted change of the measurement, which scores divided by lengths are no more.
  bool predicts_removal(Normalization normalization) const {
    return claim() == Claim::kRemoval && normalization == Normalization::kNone;
  }
  /// The result keeps a copy of the chain, which shares its tensors. Cheap: the work is done when scores are asked for.
  virtual std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem& problem) const = 0;
};

WHENCE_DECLARE_ROOM(Attributor)

}  // namespace whence
