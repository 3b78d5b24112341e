#pragma once
#include <optional>
#include <string>
#include <vector>

#include "whence/stages/adjoint.h"

namespace whence {

/// A checkpoint is called far from a minimum when the objective's gradient exceeds this fraction of an example's.
inline constexpr double kFarFromMinimum = 1e-3;
/// What is added to a Gauss-Newton curvature that nothing else keeps from being singular, times its mean eigenvalue:
/// what served linear datamodelling scores best over a network and a convnet, tests/bench/defaults.
inline constexpr double kRelativeDamping = 1;
/// The word for the damping that is chosen where the damping is open and no minimum is there: that, or
/// Stage::inverse_time where it is more (estimated by the optimizer where it is not known; of factors a part of it).
/// docs/defaults.md has what that does to linear datamodelling scores.
inline constexpr const char* kTrainingDamping = "training";
/// What a ranking needs of an iterative solve, of its residual and of the growth of its energy: at 1e-2 Spearman stayed
/// above .995 up to a condition of 1e7, and of usual problems the first ten the same ten.
inline constexpr double kRankingTolerance = 1e-2;

/// What is asked of the inverse curvature of a chain. What is open, "auto" or empty, is chosen.
struct InverseRequest {
  std::string curvature = "auto";  ///< A spec, or auto.
  std::string solver = "auto";     ///< A spec, or auto.
  std::optional<double> damping = {}, relative_damping = {};
  bool training_damping = false;  ///< At least what the stages' training times ask for, beside these.
  InverseOptions options = {};    ///< How stages respond and what is inverted; its dampings are not read.
  bool indefinite = false;        ///< A solve has met negative curvature: the Hessian is not chosen.

  bool curvature_is_open() const { return curvature == "auto"; }
  bool solver_is_open() const { return solver == "auto"; }
  bool damping_is_open() const { return !damping && !relative_damping; }
};

/// One answer for a whole chain, whose stages must share a family of curvature.
struct InverseChoice {
  std::string curvature, solver;  ///< Specs.
  InverseOptions options;         ///< With the dampings.
  std::string reason;             ///< Why what was left open became this, in one clause; empty where nothing was open.
  std::string otherwise;          ///< Flags for another choice, and what they do; likewise.
  /// Of the stages from the first that is solved at; what earlier ones are at is nothing to the scores.
  std::vector<std::optional<Stationarity>> stationarity;
};

/// Chooses what a request leaves open, for the solves of `queries` right-hand sides at the stages from `first` on:
/// at a minimum without negative curvature the Hessian and no damping, but what covers the curvature that rounding
/// leaves a tuning's flat directions; elsewhere a Gauss-Newton matrix with kRelativeDamping, or more where a stage's
/// training was short (Stage::inverse_time), as ekfac where conjugate gradients would take more than minutes and the
/// model allows. Where a stage among them is primed it is the Hessian, its only curvature, damped as much as either
/// place asks for. What a request fixes is kept, and the rest made to go with it. Throws NumericalError, with the
/// remedy, where a Hessian that is asked for is not positive definite with the damping that is asked for, rather than
/// let a long solve find that.
///
/// Cost: three passes over each stage's data for its gradient; where the Hessian is in question, up to 40 products
/// with it. Times are nominal (core/operation_count.h), so that the same request of the same chain is answered alike.
InverseChoice choose_inverse(const Chain& chain, std::size_t first, std::int64_t queries, const InverseRequest& request,
                             const Progress& progress = {});

/// Whether every stage from `first` on has a Gauss-Newton matrix (Objective::has_gauss_newton).
bool have_gauss_newton(const Chain& chain, std::size_t first);

/// A damping > 0 rounded up to two digits, so that it can be typed.
double rounded_up(double damping);

}  // namespace whence
