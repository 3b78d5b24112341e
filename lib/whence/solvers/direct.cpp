// The dense matrix, factored. Exact, for small models and as the truth that others are measured by.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "whence/core/tensors.h"
#include "whence/solvers/detail/dense.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct DirectOptions {
  double max_bytes = 4e9;
  double pseudo_tolerance = 1e-12;
  double relative_tolerance = 1e-4;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-bytes", self.max_bytes, kPositive, "refuse when the dense matrix and its factor would take more");
    field("pseudo-tolerance", self.pseudo_tolerance, kUnitInterval,
          "inversion pseudo takes |h| <= this * the largest |h| for zero, or what products in the dtype round away");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "converged means |b - A x| <= this * |b|; the work does not depend on it");
  }
};

using Matrix = detail::SmallMatrix;

class DirectInverse : public Inverse {
 public:
  DirectInverse(const System& system, const DirectOptions& options)
      : Inverse(system), options_(options), matrix_(detail::dense_matrix(*system.a, "direct")) {
    const auto& filter = system.filter;
    if (filter.inversion == Inversion::kDamped) {
      matrix_.diagonal().array() += filter.damping;
      cholesky_.compute(matrix_);
      if (cholesky_.info() == Eigen::Success) {
        return;
      }
    }
    eigen_.compute(matrix_);
    const auto& h = eigen_.eigenvalues();
    const double rounding = system.a->rounding() * h.cwiseAbs().maxCoeff();
    if (filter.inversion == Inversion::kDamped) {
      smallest_ = h[0];
      rounded_ = smallest_ >= -rounding;
      gains_ = (h.array() > rounding).select(h.array().inverse(), 0.0).matrix();
      return;
    }
    const double zero = filter.inverts() ? std::max(options.pseudo_tolerance * h.cwiseAbs().maxCoeff(), rounding) : 0;
    const auto gains = filter(at::from_blob(const_cast<double*>(h.data()), {h.size()}, at::kDouble), zero).contiguous();
    gains_ = Eigen::Map<const Eigen::VectorXd>(gains.const_data_ptr<double>(), h.size());
  }

  MatrixRoot root() const override {
    if (indefinite() || rounded_) {
      return {};
    }
    const auto n = matrix_.rows();
    const auto options = at::TensorOptions().dtype(at::kDouble);
    if (factored()) {
      const Matrix rows = cholesky_.matrixL().solve(Eigen::MatrixXd::Identity(n, n));
      return {detail::to_tensor(rows, options), at::ones({n}, options)};
    }
    const Matrix rows = eigen_.eigenvectors().transpose();
    return {detail::to_tensor(rows, options), at::from_blob(const_cast<double*>(gains_.data()), {n}, options).clone()};
  }

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    std::vector<SolverSummary> summaries(static_cast<std::size_t>(b.size(0)));
    x = at::zeros_like(b);
    if (indefinite()) {
      for (auto& summary : summaries) {
        summary.termination = Termination::kIndefinite;
        summary.relative_residual = 1;
        summary.smallest_ritz = smallest_;
        summary.largest_ritz = eigen_.eigenvalues().maxCoeff();
        summary.message = fmt::format("the smallest eigenvalue is {:.3e}", smallest_ - system().filter.damping);
      }
      return summaries;
    }
    const Eigen::MatrixXd rhs = detail::to_matrix(b).transpose();
    Eigen::MatrixXd solution;
    if (factored()) {
      solution = cholesky_.solve(rhs);
    } else {
      solution = eigen_.eigenvectors() * (gains_.asDiagonal() * (eigen_.eigenvectors().transpose() * rhs));
    }
    x = detail::to_tensor(solution.transpose(), b.options());
    const auto residuals =
        system().filter.inverts() ? relative_residuals(system(), b, x) : std::vector<double>(summaries.size(), -1.0);
    for (std::size_t k = 0; k < summaries.size(); ++k) {
      auto& summary = summaries[k];
      summary.relative_residual = residuals[k];
      if (!factored()) {
        summary.smallest_ritz = eigen_.eigenvalues().minCoeff();
        summary.largest_ritz = eigen_.eigenvalues().maxCoeff();
      }
      conclude(summary);
    }
    return summaries;
  }

 private:
  bool factored() const { return gains_.size() == 0; }
  bool indefinite() const { return std::isfinite(smallest_) && !rounded_; }

  void conclude(SolverSummary& summary) const {
    if (rounded_) {
      summary.message = fmt::format(
          "the smallest eigenvalue, {:.1e}, is rounding beside the largest, {:.1e}, and such "
          "were left out: {}",
          smallest_, eigen_.eigenvalues().maxCoeff(), rounding_remedy(*system().a));
    } else if (summary.relative_residual <= options_.relative_tolerance) {
      summary.termination = Termination::kConverged;
      summary.message = factored() ? "Cholesky" : "eigendecomposition";
    } else {
      summary.message = fmt::format("rounding leaves a residual of {:.1e} |b|: {}", summary.relative_residual,
                                    rounding_remedy(*system().a));
    }
  }

  DirectOptions options_;
  Matrix matrix_;  // damped where the filter is
  Eigen::LLT<Eigen::MatrixXd> cholesky_;
  Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen_;
  Eigen::VectorXd gains_;  // of the eigenvalues, where there is no Cholesky factor
  double smallest_ = NAN;  // with the damping, where the matrix is not positive definite
  bool rounded_ = false;   // and whether rounding explains that
};

class DirectSolver : public Solver {
 public:
  explicit DirectSolver(DirectOptions options) : options_(options) {}
  /// The residual's, and the matrix once.
  ProductCount product_count(const SystemTraits& traits) const override {
    return {1, 1, true, static_cast<double>(traits.parameters)};
  }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    const auto size = static_cast<double>(system.a->size());
    const double bytes = 2.0 * 8.0 * size * size;
    if (bytes > options_.max_bytes) {
      throw InvalidArgument(fmt::format(
          "direct: {} parameters need {:.1f} GB for the dense matrix and its factor, expected at most {:.1f} GB "
          "(option max-bytes); use cg",
          system.a->size(), bytes / 1e9, options_.max_bytes / 1e9));
    }
    return std::make_unique<DirectInverse>(system, options_);
  }

 private:
  DirectOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, direct, DirectSolver, DirectOptions)

}  // namespace whence
