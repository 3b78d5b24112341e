#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "whence/kernels/kernel_solver.h"

namespace whence::detail {

/// What the options of solvers that can take outputs together or each alone are made of.
inline constexpr std::string_view kOutputsWords = "joint|separate";

/// A kernel [A, C, B, C] as a matrix [A C, B C]; `separate`: with what couples different outputs left out.
at::Tensor kernel_matrix(const at::Tensor& kernel, bool separate);
/// What is regressed on less the start: [N C].
at::Tensor regressed(const KernelProblem& problem);
/// Of the examples `group`, their rows in a matrix of C outputs an example: [g C] int64.
at::Tensor rows_of(const std::vector<std::int64_t>& group, std::int64_t outputs);
/// The blocks [N, C, C] on the diagonal of a matrix [N C, N C].
at::Tensor own_blocks(const at::Tensor& matrix, std::int64_t outputs);
/// |m - m'| / |m|, by the largest entries, up to which a kernel counts as symmetric: that of float32.
bool is_symmetric(const at::Tensor& matrix);
/// The largest singular value.
double operator_norm(const at::Tensor& matrix, bool symmetric);
/// Throws InvalidArgument where queries do not fit the problem.
void check_queries(const KernelProblem& problem, const KernelQueries& queries);
/// The queries' f0, or zeros: [Q, C].
at::Tensor start_of(const KernelProblem& problem, const KernelQueries& queries);

/// For solvers of one system an output. The kernel of output k with itself: [N, N].
at::Tensor own_kernel(const KernelProblem& problem, std::int64_t k);
/// The mean of a kernel's diagonal [N], as sizes or as it is. Throws NumericalError, which names the solver, where it
/// is not above 0.
double mean_diagonal(const at::Tensor& diagonal, std::string_view solver);
/// Whether an example is of the class that output k speaks for: 1 or -1, [N].
at::Tensor class_signs(const KernelProblem& problem, std::int64_t k);
/// sum_i K((q, c), (i, c)) w_ic of a kernel [Q, C, N, C] and weights [N, C]: [Q, C].
at::Tensor own_sums(const at::Tensor& kernel, const at::Tensor& weights);

/// A regression: f = f0 + K a, a = G (y - f0), with G the inverse of the kernel plus lambda I, or its pseudoinverse.
class LinearFit : public KernelFit {
 public:
  at::Tensor outputs(const KernelQueries& queries) const override;
  const at::Tensor& coefficients() const override { return coefficients_; }
  std::vector<LeaveOut> ways() const override;
  at::Tensor influence(const KernelQueries& queries) const override;
  at::Tensor self_influence() const override;

 protected:
  /// `inverse` is G [N C, N C]; `inverts`: it is an inverse, not a pseudoinverse that leaves directions out.
  LinearFit(KernelProblem problem, bool separate, at::Tensor inverse, bool inverts, bool symmetric);
  at::Tensor without(const KernelQueries& queries, const std::vector<std::int64_t>& group, LeaveOut how) const override;

 private:
  at::Tensor asked(const KernelQueries& queries) const;

  bool separate_, inverts_, symmetric_;
  at::Tensor inverse_, hat_;            // G, K G: [N C, N C]
  at::Tensor coefficients_, residual_;  // [N, C]
};

}  // namespace whence::detail
