#pragma once
#include <memory>
#include <string>
#include <vector>

#include "whence/core/error.h"
#include "whence/curvature/curvature.h"
#include "whence/solvers/solver.h"
#include "whence/stages/moved.h"
#include "whence/stages/response.h"
#include "whence/stages/stage.h"

namespace whence {

/// What inverts the curvature of every stage: {create<Curvature>("hessian"), create<Solver>("cg"), {.damping = 0.1}}.
/// Methods that invert nothing take {}.
struct InverseProblem {
  std::shared_ptr<const Curvature> curvature;
  std::shared_ptr<const Solver> solver;
  InverseOptions options = {};
};

/// One stage's answer to "how does the measurement move when this stage's data is reweighted?", for K measurements.
struct StageAdjoint {
  at::Tensor vectors;  ///< s [K, S P] = inverse curvature times the cotangent, for each of the stage's S points. An
                       ///< example's score is -sum over the points of s . grad loss there.
  std::vector<SolverSummary> summaries;  ///< Of the K solves.
};

/// A solve met negative curvature: a Hessian away from a minimum, with too little damping.
class IndefiniteCurvature : public NumericalError {
 public:
  using NumericalError::NumericalError;
};

/// What was assumed and spent at a stage, over all sweeps so far.
struct StageEvidence {
  bool solved = false;
  std::string solver = {};      ///< The spec that solver auto picked; empty where the solver was named.
  double damping = 0;           ///< The effective damping.
  double mean_eigenvalue = -1;  ///< Of the undamped curvature; -1 where it was not needed.
  double products = 0;          ///< Operator products with one vector.
  std::int64_t points = 1;      ///< Where curvature was taken: 1, or one a segment.
};

/// Carries gradients of measurements at the last stage back through the chain.
///
/// At each stage s = H^-1 q; the stage before receives the cotangent of the body it handed on, (d merge / d parent)' c
/// - X s, with X = d^2 Phi / d parent d theta, and nothing on its head. H. Chen et al., "Multi-Stage Influence
/// Function", NeurIPS 2020, both of its cases, for any number of stages: formulas.md 9.2. H and X come from one
/// curvature family.
class Adjoint {
 public:
  /// Throws InvalidArgument, with the reason, where a part of the problem is missing or the choices are not the
  /// derivative of one objective: a solver whose factors are of another family than the curvature, in a chain;
  /// proximal-bregman with the exact Hessian; segment with an inversion other than damped, or for a stage whose
  /// learning rates are not known.
  Adjoint(Chain chain, InverseProblem problem);
  ~Adjoint();
  Adjoint(const Adjoint&) = delete;
  Adjoint& operator=(const Adjoint&) = delete;

  /// Throws InvalidArgument, before any work, for a primed stage from `first` on whose priming is not exact, or with a
  /// curvature other than the Hessian, for response segment through a stage that starts_from_parent() or without
  /// learning rates that are known, and where the curvature cannot be had of a stage or of how it uses its parent.
  void check(std::size_t first) const;

  /// What does not depend on measurements, of the stages from `first` on: curvatures, dampings, what solvers make
  /// ready. sweep() does it where this was not called. Throws what check() does.
  void prepare(std::size_t first);

  /// `gradients` are those of K measurements in the model's parameters at the last stage: all of them, or, where
  /// `first` is the last stage, moved_parameters() of it. Sweeps from the last stage back to `first`; entries of the
  /// result before `first` are empty. Throws IndefiniteCurvature, naming the stage and what would help, where a solve
  /// met negative curvature, NumericalError where it diverged or gave a value that is not finite. Cost: one block solve
  /// a stage, one mixed product between two.
  ///
  /// The summaries say whose residual they tell (SolverSummary::residual_of). Of a curvature by factors it is that of
  /// the matrix that the factors approximate, for the first solves of a stage, where products with that take seconds;
  /// else of the factors. Of solves in a shorter dtype it is that in float64 where that takes as little, and they have
  /// not converged where it is ten times their own; of passes in bfloat16 that were not measured so it is said.
  std::vector<StageAdjoint> sweep(const Directions& gradients, std::size_t first, const Progress& progress);

  /// Counts `measurements` as swept in an earlier run, of whose solves the summaries are known: what is told of the
  /// others is what it would be without the interruption.
  void pass_over(std::int64_t measurements) { swept_ += measurements; }

  /// The inverse that a stage of one point is solved with, of what, and its filter. Throws InvalidArgument at one of
  /// several points.
  struct StageInverse {
    const Inverse& inverse;
    Filter filter;
    OperatorPtr curvature;
  };
  StageInverse inverse(std::size_t stage);

  const std::vector<StageEvidence>& evidence();
  /// The S points of a stage that its vectors are for: theta alone, or the ends of its segments.
  std::vector<TensorList> points(std::size_t stage) const;

 private:
  struct Prepared;
  Prepared& prepared(std::size_t stage);
  void check_stage(const Stage& stage) const;

  const Chain chain_;  ///< A copy, which shares the tensors.
  const InverseProblem problem_;
  const Curvature& curvature_;  ///< The problem's, as are the solver and the options.
  const Solver& solver_;
  const InverseOptions& options_;
  std::vector<std::unique_ptr<Prepared>> prepared_;
  std::int64_t swept_ = 0;  ///< Measurements so far.
  std::vector<StageEvidence> evidence_;
};

}  // namespace whence
