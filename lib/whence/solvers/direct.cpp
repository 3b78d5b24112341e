// The dense matrix, factored. Exact, for small models and as the truth that others are measured by.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <chrono>
#include <cmath>

#include "whence/core/tensors.h"
#include "whence/solvers/detail/dense.h"
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

using Matrix = detail::SmallMatrix;

class DirectInverse : public Inverse {
 public:
  DirectInverse(const LinearOperator& a, const Filter& filter, double pseudo_tolerance)
      : matrix_(detail::dense_matrix(a, "direct")), filter_(filter) {
    if (filter.inversion == Inversion::kDamped) {
      matrix_.diagonal().array() += filter.damping;
      cholesky_.compute(matrix_);
      if (cholesky_.info() != Eigen::Success) {
        const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(matrix_, Eigen::EigenvaluesOnly);
        smallest_ = eigen.eigenvalues()[0] - filter.damping;
      }
      return;
    }
    eigen_.compute(matrix_);
    const auto& h = eigen_.eigenvalues();
    const double zero = filter.inverts() ? pseudo_tolerance * h.cwiseAbs().maxCoeff() : 0;
    const auto gains = filter(at::from_blob(const_cast<double*>(h.data()), {h.size()}, at::kDouble), zero).contiguous();
    gains_ = Eigen::Map<const Eigen::VectorXd>(gains.const_data_ptr<double>(), h.size());
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
    const Eigen::MatrixXd rhs = detail::to_matrix(b).transpose();
    Eigen::MatrixXd solution;
    if (damped()) {
      solution = cholesky_.solve(rhs);
    } else {
      solution = eigen_.eigenvectors() * (gains_.asDiagonal() * (eigen_.eigenvectors().transpose() * rhs));
    }
    x = detail::to_tensor(solution.transpose(), b.options());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (std::size_t k = 0; k < summaries.size(); ++k) {
      const auto column = static_cast<Eigen::Index>(k);
      summaries[k].termination = Termination::kConverged;
      summaries[k].relative_residual = residual(rhs.col(column), solution.col(column));
      summaries[k].seconds = seconds;
      summaries[k].message = damped() ? "Cholesky" : "eigendecomposition";
      if (!damped()) {
        summaries[k].smallest_ritz = eigen_.eigenvalues().minCoeff();
        summaries[k].largest_ritz = eigen_.eigenvalues().maxCoeff();
      }
    }
    return summaries;
  }

 private:
  bool damped() const { return filter_.inversion == Inversion::kDamped; }

  /// Of the equation behind the filter: (A + damping I) x = b or (A^2 + damping^2 I) x = A b; -1 where there is none.
  double residual(const Eigen::VectorXd& b, const Eigen::VectorXd& x) const {
    if (!filter_.inverts()) {
      return -1;
    }
    const double damping = filter_.inversion == Inversion::kFiltered ? filter_.damping : 0;
    const Eigen::VectorXd target = damped() ? b : Eigen::VectorXd(matrix_ * b);
    const Eigen::VectorXd image = matrix_ * x;
    const Eigen::VectorXd left = damped() ? image : Eigen::VectorXd(matrix_ * image + damping * damping * x);
    return target.norm() > 0 ? (target - left).norm() / target.norm() : 0;
  }

  Matrix matrix_;  // damped where the filter is
  Filter filter_;
  Eigen::LLT<Eigen::MatrixXd> cholesky_;
  Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen_;
  Eigen::VectorXd gains_;  // the filter of the eigenvalues
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
