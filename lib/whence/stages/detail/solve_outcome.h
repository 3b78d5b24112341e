#pragma once
// What is made of how a stage's solves ended.
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "whence/curvature/curvature.h"
#include "whence/solvers/solver.h"
#include "whence/stages/response.h"
#include "whence/stages/stage.h"

namespace whence::detail {

/// Throws IndefiniteCurvature or NumericalError, with the remedy, where a solve has no usable answer.
void check_solves(const Stage& stage, const std::vector<SolverSummary>& summaries, double damping);

/// Of one block solved in several parts: the worst outcome, and what all of them cost.
void add_summaries(std::vector<SolverSummary>& total, const std::vector<SolverSummary>& part);

/// Says of what the residuals of a stage's solves are, and measures the first ones against the exact matrix where that
/// is cheap (Adjoint::sweep).
class ResidualJudge {
 public:
  /// Keeps references to all three.
  ResidualJudge(const Stage& stage, const Curvature& curvature, const InverseOptions& options)
      : stage_(stage), curvature_(curvature), options_(options) {}

  /// One block: b [K, P] solved to x by `solver`, a spec or empty, on the operator with the damping.
  struct Solved {
    const at::Tensor &b, &x;
    const OperatorPtr& curvature;
    double damping;
    const std::string& solver;
  };
  /// Of measurements of which `swept` were solved before.
  void judge(const Solved& solved, std::int64_t swept, std::vector<SolverSummary>& summaries);

 private:
  const Stage& stage_;
  const Curvature& curvature_;
  const InverseOptions& options_;
  std::int64_t looks_ = -1;  // first measurements whose residuals are taken of the exact matrix; -1: not known yet
  OperatorPtr exact_;        // that matrix, where a residual was measured
};

}  // namespace whence::detail
