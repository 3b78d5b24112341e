#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "whence/stages/adjoint.h"

namespace whence {

/// For K queries and one stage, the vectors that the stage's examples are scored with: score(query k, example z) =
/// -<V_k, grad loss(z)> in the stage's model parameters.
struct Directions {
  at::Tensor vectors;                    ///< [K, entries of the stage's merged parameters].
  std::vector<SolverSummary> summaries;  ///< One a query, where a solve was made.
};

/// An attribution method at work on one chain. What does not depend on the queries is made once.
class DirectionSource {
 public:
  virtual ~DirectionSource() = default;
  /// For each stage of the chain (those before `first` left empty), from the measurements' gradients [K, entries of the
  /// last stage's merged parameters].
  virtual std::vector<Directions> directions(const at::Tensor& measurement_gradients, std::size_t first,
                                             const Progress& progress) = 0;
  /// Whether scores are divided by both norms.
  virtual bool normalized() const { return false; }
  /// One entry a stage; empty where nothing is assumed of the curvature.
  virtual std::vector<StageEvidence> evidence() { return {}; }
};

/// What influence methods solve with. The parts must outlive what is prepared with them.
struct InverseProblem {
  const Curvature& curvature;
  const Solver& solver;
  InverseOptions options;
};

/// A way to say which examples a prediction comes from. Every gradient method keeps the sign of a score: positive,
/// upweighting the example raises the measurement.
class Attributor {
 public:
  virtual ~Attributor() = default;
  virtual bool uses_curvature() const = 0;
  /// The chain must outlive the result.
  virtual std::unique_ptr<DirectionSource> prepare(const Chain& chain, const InverseProblem& problem) const = 0;
};

template <>
std::span<const Method<Attributor>> methods<Attributor>();
template <>
std::string_view room_noun<Attributor>();

}  // namespace whence
