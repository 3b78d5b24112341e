#pragma once
#include <vector>

#include "whence/solvers/detail/blocks.h"
#include "whence/solvers/solver.h"

namespace whence::detail {

/// Eigenvalues of a Krylov space's projection, ascending, and their vectors in the space's basis.
struct RitzPairs {
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;
  double next = 0;  ///< Length of what A takes out of the space; the residual of pair j is next * |last entry of it|.
};

/// Lanczos's recurrence from one start, fully reorthogonalised. With a preconditioner M the pairs are those of M A, in
/// the inner product of M's inverse. Memory: one vector a step, two with a preconditioner.
class KrylovSpace {
 public:
  explicit KrylovSpace(const at::Tensor& start, BlockMap precondition = {});

  /// Whether every direction that A reaches from the start is in the space.
  bool exhausted() const { return exhausted_; }
  Eigen::Index steps() const { return static_cast<Eigen::Index>(diagonal_.size()); }
  /// Of the start, in M's norm.
  double start_norm() const { return start_norm_; }
  RitzPairs ritz() const;
  /// sum_j factors[j] basis_j: [P]. As many factors as steps, or fewer.
  at::Tensor combine(const Eigen::VectorXd& factors) const;

  /// The vector [P] whose product with A extends the space; it is not exhausted.
  at::Tensor next() const { return primal()[steps()]; }
  void extend(const at::Tensor& product);

 private:
  const at::Tensor& primal() const { return precondition_ ? primal_ : dual_; }
  void append(const at::Tensor& w, const at::Tensor& z, double length);

  BlockMap precondition_;
  at::Tensor dual_, primal_;  // [capacity, P]: u_j and z_j = M u_j, <u_i, z_j> = 1 where i = j and else 0
  std::vector<double> diagonal_, off_diagonal_;
  double start_norm_ = 0;
  bool exhausted_ = false;
};

/// One step of every space that is not exhausted, by one product of a block.
void advance(const LinearOperator& a, const std::vector<KrylovSpace*>& spaces);

}  // namespace whence::detail
