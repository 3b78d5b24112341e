#include "whence/kernels/detail/kernel_system.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/error.h"

namespace whence::detail {

at::Tensor kernel_matrix(const at::Tensor& kernel, bool separate) {
  const auto a = kernel.size(0), b = kernel.size(2), c = kernel.size(1);
  const auto own = separate && c > 1 ? kernel * at::eye(c, kernel.options()).view({1, c, 1, c}) : kernel;
  return own.reshape({a * c, b * c});
}

at::Tensor regressed(const KernelProblem& problem) {
  const auto targets =
      problem.targets.defined() ? problem.targets : class_targets(problem.labels, problem.kernel.size(1));
  return (problem.start.defined() ? targets - problem.start : targets).flatten();
}

at::Tensor rows_of(const std::vector<std::int64_t>& group, std::int64_t outputs) {
  return (at::tensor(group, at::kLong).unsqueeze(1) * outputs + at::arange(outputs, at::kLong)).flatten();
}

at::Tensor own_blocks(const at::Tensor& matrix, std::int64_t outputs) {
  const auto n = matrix.size(0) / outputs;
  return matrix.view({n, outputs, n, outputs}).diagonal(0, 0, 2).permute({2, 0, 1}).contiguous();
}

bool is_symmetric(const at::Tensor& matrix) {
  constexpr double kRounding = 1e-6;
  return (matrix - matrix.t()).abs().max().item<double>() <= kRounding * matrix.abs().max().item<double>();
}

double operator_norm(const at::Tensor& matrix, bool symmetric) {
  return (symmetric ? at::linalg_eigvalsh(matrix).abs() : at::linalg_svdvals(matrix)).max().item<double>();
}

void check_queries(const KernelProblem& problem, const KernelQueries& queries) {
  const auto n = problem.kernel.size(0), c = problem.kernel.size(1);
  const auto& kernel = queries.kernel;
  if (kernel.dim() != 4 || kernel.size(1) != c || kernel.size(2) != n || kernel.size(3) != c ||
      kernel.scalar_type() != at::kDouble) {
    throw InvalidArgument(
        fmt::format("kernel: queries' kernel of shape [{}] and dtype {}, expected [Q, {}, {}, {}] "
                    "Double",
                    fmt::join(kernel.sizes(), ", "), c10::toString(kernel.scalar_type()), c, n, c));
  }
  if (problem.start.defined() != queries.start.defined()) {
    throw InvalidArgument(fmt::format("kernel: the fit is {} the model's output at the start and the queries are {}",
                                      problem.start.defined() ? "with" : "without",
                                      queries.start.defined() ? "with it" : "without"));
  }
  if (queries.start.defined() && (queries.start.sizes() != at::IntArrayRef({kernel.size(0), c}))) {
    throw InvalidArgument(fmt::format("kernel: queries' start of shape [{}], expected [{}, {}]",
                                      fmt::join(queries.start.sizes(), ", "), kernel.size(0), c));
  }
}

at::Tensor start_of(const KernelProblem& problem, const KernelQueries& queries) {
  return queries.start.defined() ? queries.start
                                 : at::zeros({queries.kernel.size(0), problem.kernel.size(1)}, at::kDouble);
}

at::Tensor own_kernel(const KernelProblem& problem, std::int64_t k) { return problem.kernel.select(3, k).select(1, k); }

double mean_diagonal(const at::Tensor& diagonal, std::string_view solver) {
  const double out = diagonal.mean().item<double>();
  if (!(out > 0)) {
    throw NumericalError(
        fmt::format("{}: the kernel's diagonal is not above 0, and nothing can be learnt from it", solver));
  }
  return out;
}

at::Tensor class_signs(const KernelProblem& problem, std::int64_t k) {
  const auto is_of = problem.kernel.size(1) == 1 ? problem.labels : problem.labels.eq(k);
  return is_of.to(at::kDouble) * 2 - 1;
}

at::Tensor own_sums(const at::Tensor& kernel, const at::Tensor& weights) {
  return (kernel.diagonal(0, 1, 3) * weights).sum(1);
}

LinearFit::LinearFit(KernelProblem problem, bool separate, at::Tensor inverse, bool inverts, bool symmetric)
    : KernelFit(std::move(problem)),
      separate_(separate),
      inverts_(inverts),
      symmetric_(symmetric),
      inverse_(std::move(inverse)) {
  const auto n = problem_.kernel.size(0), c = problem_.kernel.size(1);
  const auto targets = regressed(problem_), kernel = kernel_matrix(problem_.kernel, separate_);
  const auto solved = at::mv(inverse_, targets);
  coefficients_ = solved.view({n, c});
  residual_ = (targets - at::mv(kernel, solved)).view({n, c});
  hat_ = at::mm(kernel, inverse_);
}

at::Tensor LinearFit::asked(const KernelQueries& queries) const {
  check_queries(problem_, queries);
  return kernel_matrix(queries.kernel, separate_);
}

at::Tensor LinearFit::outputs(const KernelQueries& queries) const {
  const auto c = problem_.kernel.size(1);
  return start_of(problem_, queries) + at::mv(asked(queries), coefficients_.flatten()).view({-1, c});
}

std::vector<LeaveOut> LinearFit::ways() const {
  return inverts_ || symmetric_ ? std::vector{LeaveOut::kClosed, LeaveOut::kRefit} : std::vector{LeaveOut::kRefit};
}

at::Tensor LinearFit::without(const KernelQueries& queries, const std::vector<std::int64_t>& group, LeaveOut) const {
  const auto c = problem_.kernel.size(1);
  const auto rows = rows_of(group, c);
  const auto columns = inverse_.index_select(1, rows);
  at::Tensor moved;  // what the coefficients lose
  if (inverts_) {
    const auto own = columns.index_select(0, rows);
    moved = at::linalg_solve(own, coefficients_.flatten().index_select(0, rows));
  } else {
    constexpr double kSingular = 1e-8;  // then the group alone spans a direction, and the rank falls without it
    auto rest = hat_.index_select(0, rows).index_select(1, rows).neg_();
    rest.diagonal().add_(1);
    if (at::linalg_svdvals(rest).min().item<double>() < kSingular) {
      return refit_without(queries, group);
    }
    moved = at::linalg_solve(rest, residual_.flatten().index_select(0, rows));
  }
  const auto change = at::mv(asked(queries), at::mv(columns, moved)).view({-1, c});
  return outputs(queries) - change;
}

at::Tensor LinearFit::influence(const KernelQueries& queries) const {
  const auto n = problem_.kernel.size(0), c = problem_.kernel.size(1);
  const auto moves = (inverse_.view({n * c, n, c}) * residual_).sum(2);  // [N C, N]
  return at::mm(asked(queries), moves).mul_(static_cast<double>(n)).view({-1, c, n});
}

at::Tensor LinearFit::self_influence() const {
  const auto n = problem_.kernel.size(0), c = problem_.kernel.size(1);
  const auto own = at::matmul(own_blocks(hat_, c), residual_.unsqueeze(2)).squeeze(2);
  return (own * residual_).sum(1).mul_(-static_cast<double>(n));
}

}  // namespace whence::detail
