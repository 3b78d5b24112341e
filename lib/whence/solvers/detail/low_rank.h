#pragma once
#include <Eigen/Core>

#include "whence/solvers/solver.h"

namespace whence::detail {

/// sum_j values[j] u_j u_j' with orthonormal rows u_j of `vectors`: an operator's leading part.
struct LowRank {
  Eigen::VectorXd values;    ///< [R], largest first.
  at::Tensor vectors;        ///< [R, P].
  double most_negative = 0;  ///< Of the sketch's eigenvalues, where rounding does not explain it; 0: none.
};

/// A randomised Nystroem approximation of a positive semidefinite operator, of at most `rank`, by one product with each
/// of `rank` random vectors. Z. Frangella, J. Tropp and M. Udell, "Randomized Nystroem preconditioning", SIAM J. Matrix
/// Anal. Appl. 44 (2023), algorithm 2.1.
LowRank nystroem_approximation(const LinearOperator& a, std::int64_t rank, Random random);

/// f(A) by a low-rank part of A: f(values) on its span, and f(0) on the complement or, without `complement`, nothing.
class LowRankInverse : public Inverse {
 public:
  /// `name` is what messages call the approximation: "rank-50 nystroem". Each block's residual is measured: one product
  /// a row, three for `filtered` and `pseudo`, none for what is no inverse.
  LowRankInverse(System system, LowRank part, bool complement, double relative_tolerance, std::string name);

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override;

 private:
  LowRank part_;
  double relative_tolerance_;
  std::string name_;
  at::Tensor gains_;    // [R], f(values) less f(0) where the complement has its own
  double outside_ = 0;  // f(0), or 0
};

}  // namespace whence::detail
