// The dense matrix, factored. Exact, for small models and as the truth that others are measured by.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <chrono>
#include <cmath>

#include "whence/core/tensors.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct DirectOptions {
  double max_bytes = 4e9;
  double pseudo_tolerance = 1e-12;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-bytes", self.max_bytes, kPositive, "refuse when the dense matrix and its factor would take more");
    field("pseudo-tolerance", self.pseudo_tolerance, kUnitInterval,
          "inversion pseudo takes |h| <= this * the largest |h| for zero");
  }
};

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Row by row from products with the unit vectors, made symmetric.
Matrix dense(const LinearOperator& a) {
  const auto n = a.size();
  constexpr std::int64_t kBlock = 128;
  Matrix matrix(n, n);
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const auto count = std::min(kBlock, n - begin);
    auto unit = at::zeros({count, n}, a.options());
    unit.diagonal(begin).fill_(1);
    const auto rows = a.apply(unit).to(at::kCPU, at::kDouble).contiguous();
    matrix.middleRows(begin, count) = Eigen::Map<const Matrix>(rows.const_data_ptr<double>(), count, n);
  }
  return 0.5 * (matrix + matrix.transpose());
}

class DirectInverse : public Inverse {
 public:
  DirectInverse(const LinearOperator& a, const Filter& filter, double pseudo_tolerance) : matrix_(dense(a)) {
    if (!matrix_.allFinite()) {
      throw NumericalError("direct: the curvature matrix is not finite");
    }
    if (filter.inversion == Inversion::kDamped) {
      matrix_.diagonal().array() += filter.damping;
      cholesky_.compute(matrix_);
      if (cholesky_.info() == Eigen::Success) {
        return;
      }
      const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(matrix_, Eigen::EigenvaluesOnly);
      smallest_ = eigen.eigenvalues()[0] - filter.damping;
      return;
    }
    eigen_.compute(matrix_);
    const auto& h = eigen_.eigenvalues().array();
    const double size = h.abs().maxCoeff();
    if (filter.inversion == Inversion::kFiltered) {
      squared_damping_ = filter.damping * filter.damping;
    }
    inverse_values_ = (h.abs() > pseudo_tolerance * size).select(h / (h.square() + squared_damping_), 0.0);
  }

  std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    const auto start = std::chrono::steady_clock::now();
    std::vector<SolverSummary> summaries(static_cast<std::size_t>(b.size(0)));
    x = at::zeros_like(b);
    if (std::isfinite(smallest_)) {
      for (auto& summary : summaries) {
        summary.termination = Termination::kIndefinite;
        summary.relative_residual = 1;
        summary.message = fmt::format("the smallest eigenvalue is {:.3e}", smallest_);
      }
      return summaries;
    }
    const auto right = b.to(at::kCPU, at::kDouble).contiguous();
    const Eigen::MatrixXd rhs =
        Eigen::Map<const Matrix>(right.const_data_ptr<double>(), right.size(0), right.size(1)).transpose();
    const bool damped = inverse_values_.size() == 0;
    Eigen::MatrixXd solution, residual, target = rhs;
    if (damped) {
      solution = cholesky_.solve(rhs);
      residual = rhs - matrix_ * solution;
    } else {  // the equation behind the filter: (A^2 + damping^2 I) x = A b
      solution =
          eigen_.eigenvectors() * inverse_values_.matrix().asDiagonal() * (eigen_.eigenvectors().transpose() * rhs);
      target = matrix_ * rhs;
      residual = target - matrix_ * (matrix_ * solution) - squared_damping_ * solution;
    }
    const Matrix rows = solution.transpose();
    x = at::from_blob(const_cast<double*>(rows.data()), {b.size(0), b.size(1)}, at::kDouble)
            .to(b.options(), false, true);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (std::size_t k = 0; k < summaries.size(); ++k) {
      const auto column = static_cast<Eigen::Index>(k);
      const double norm = target.col(column).norm();
      summaries[k].termination = Termination::kConverged;
      summaries[k].relative_residual = norm > 0 ? residual.col(column).norm() / norm : 0;
      summaries[k].seconds = seconds;
      summaries[k].message = damped ? "Cholesky" : "eigendecomposition";
    }
    return summaries;
  }

 private:
  Matrix matrix_;
  Eigen::LLT<Eigen::MatrixXd> cholesky_;
  Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen_;
  Eigen::ArrayXd inverse_values_;  // empty for the damped inverse
  double squared_damping_ = 0;
  double smallest_ = NAN;  // of the undamped matrix, when it is not positive definite with the damping
};

class DirectSolver : public Solver {
 public:
  explicit DirectSolver(DirectOptions options) : options_(options) {}

  std::unique_ptr<Inverse> prepare(const System& system) const override {
    const auto& [a, filter, point] = system;
    check_damping(filter);
    const double bytes = 2.0 * 8.0 * static_cast<double>(a->size()) * static_cast<double>(a->size());
    if (bytes > options_.max_bytes) {
      throw InvalidArgument(fmt::format(
          "direct: {} parameters need {:.1f} GB for the dense matrix and its factor, expected at most {:.1f} GB "
          "(option max-bytes); use cg",
          a->size(), bytes / 1e9, options_.max_bytes / 1e9));
    }
    return std::make_unique<DirectInverse>(*a, filter, options_.pseudo_tolerance);
  }

 private:
  DirectOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, direct, DirectSolver, DirectOptions)

}  // namespace whence
