#pragma once
#include <memory>
#include <vector>

#include "whence/curvature/curvature.h"
#include "whence/solvers/solver.h"
#include "whence/stages/stage.h"

namespace whence {

/// How the inverse curvature of every stage is taken.
struct InverseOptions {
  Inversion inversion = Inversion::kDamped;
  double damping = 0;           ///< Absolute.
  double relative_damping = 0;  ///< Times the mean eigenvalue of the stage's curvature; added to `damping`.
};

/// One stage's answer to "how does the measurement move when this stage's data is reweighted?", for K measurements.
struct StageAdjoint {
  at::Tensor vectors;  ///< s [K, P] = inverse curvature times the cotangent. An example's score is -s . grad loss.
  std::vector<SolverSummary> summaries;  ///< Of the K solves.
};

/// What was assumed and spent at a stage, over all sweeps so far.
struct StageEvidence {
  bool solved = false;
  double damping = 0;           ///< The effective damping.
  double mean_eigenvalue = -1;  ///< Of the undamped curvature; -1 where it was not needed.
  double products = 0;          ///< Operator products with one vector.
};

/// Carries gradients of measurements at the last stage back through the chain.
///
/// At each stage s = H^-1 q; the stage before receives the cotangent of the body it handed on, (d merge / d parent)' c
/// - X s, with X = d^2 Phi / d parent d theta, and nothing on its head. H. Chen et al., "Multi-Stage Influence
/// Function", NeurIPS 2020, both of its cases, for any number of stages: formulas.md 9.2. H and X come from one
/// curvature family.
class Adjoint {
 public:
  Adjoint(const Chain& chain, const Curvature& curvature, const Solver& solver, const InverseOptions& options);
  ~Adjoint();

  /// `measurement_gradients` [K, entries of the last stage's merged parameters]. Sweeps from the last stage back to
  /// `first`; entries of the result before `first` are empty. Throws NumericalError, naming the stage and what would
  /// help, where a solve met an indefinite curvature, diverged or gave a value that is not finite. Cost: one block
  /// solve a stage, one mixed product between two.
  std::vector<StageAdjoint> sweep(const at::Tensor& measurement_gradients, std::size_t first, const Progress& progress);

  const std::vector<StageEvidence>& evidence();

 private:
  struct Prepared;
  Prepared& prepared(std::size_t stage);

  const Chain& chain_;
  const Curvature& curvature_;
  const Solver& solver_;
  InverseOptions options_;
  std::vector<std::unique_ptr<Prepared>> prepared_;
  std::vector<StageEvidence> evidence_;
};

/// (d merge / d theta) v for each row of v: the direction of the model's parameters that a direction of the trained
/// ones is. [K, P] to [K, entries of the merged parameters].
at::Tensor push_forward(const Stage& stage, const at::Tensor& v);

}  // namespace whence
