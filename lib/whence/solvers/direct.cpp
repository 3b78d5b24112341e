// The dense matrix, factored. Exact, for small models and as the truth that others are measured by.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/symmetric_eigen.h"
#include "whence/solvers/detail/dense.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct DirectOptions {
  double max_bytes = 4e9;
  double pseudo_tolerance = 1e-12;
  double relative_tolerance = detail::kFactorisedTolerance;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-bytes", self.max_bytes, kPositive,
          "refuse when the dense matrix and its factor, or where it is not damped its eigenvectors, would take more");
    field("pseudo-tolerance", self.pseudo_tolerance, kUnitInterval,
          "inversion pseudo takes |h| <= this * the largest |h| for zero, or what products in the dtype round away");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "converged means |b - A x| <= this * |b|; the work does not depend on it");
  }
};

class DirectInverse : public Inverse {
 public:
  DirectInverse(const System& system, const DirectOptions& options) : Inverse(system), options_(options) {
    const auto& filter = system.filter;
    const auto matrix = detail::dense_matrix(*system.a, "direct");
    if (filter.inversion == Inversion::kDamped) {
      matrix.diagonal().add_(filter.damping);
      const auto [factor, info] = at::linalg_cholesky_ex(matrix);
      if (info.item<int>() == 0) {
        cholesky_ = factor;
        return;
      }
    }
    const auto pairs = symmetric_eigen(matrix, "direct: the curvature");
    values_ = pairs.values;
    vectors_ = pairs.vectors;
    const double largest = values_.abs().max().item<double>();
    const double rounding = system.a->rounding() * largest;
    if (filter.inversion == Inversion::kDamped) {
      const double smallest = values_[0].item<double>();
      rounded_ = smallest >= -rounding;
      indefinite_ = !rounded_;
      gains_ = at::where(values_ > rounding, values_.reciprocal(), at::zeros_like(values_));
      return;
    }
    gains_ = filter(values_, filter.inverts() ? std::max(options.pseudo_tolerance * largest, rounding) : 0);
  }

  MatrixRoot root() const override {
    if (indefinite_ || rounded_) {
      return {};
    }
    if (factored()) {
      const auto identity = at::eye(cholesky_.size(0), at::kDouble);
      return {at::linalg_solve_triangular(cholesky_, identity, /*upper=*/false),
              at::ones({cholesky_.size(0)}, at::kDouble)};
    }
    return {vectors_.t().contiguous(), gains_.clone()};
  }

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    std::vector<SolverSummary> summaries(static_cast<std::size_t>(b.size(0)));
    x = at::zeros_like(b);
    if (indefinite_) {
      for (auto& summary : summaries) {
        summary.termination = Termination::kIndefinite;
        summary.relative_residual = 1;
        summary.smallest_ritz = smallest();
        summary.largest_ritz = largest();
        summary.message = fmt::format("the smallest eigenvalue is {:.3e}", smallest() - system().filter.damping);
      }
      return summaries;
    }
    const auto rhs = b.to(at::kCPU, at::kDouble).t();
    const auto solution =
        factored() ? at::cholesky_solve(rhs, cholesky_) : vectors_.mm(vectors_.t().mm(rhs).mul(gains_.unsqueeze(1)));
    x = solution.t().contiguous().to(b.options());
    const auto residuals =
        system().filter.inverts() ? relative_residuals(system(), b, x) : std::vector<double>(summaries.size(), -1.0);
    for (std::size_t k = 0; k < summaries.size(); ++k) {
      auto& summary = summaries[k];
      summary.relative_residual = residuals[k];
      if (!factored()) {
        summary.smallest_ritz = smallest();
        summary.largest_ritz = largest();
      }
      conclude(summary);
    }
    return summaries;
  }

 private:
  bool factored() const { return cholesky_.defined(); }
  double smallest() const { return values_[0].item<double>(); }
  double largest() const { return values_[-1].item<double>(); }

  void conclude(SolverSummary& summary) const {
    if (rounded_) {
      summary.message = fmt::format(
          "the smallest eigenvalue, {:.1e}, is rounding beside the largest, {:.1e}, and such "
          "were left out: {}",
          smallest(), largest(), rounding_remedy(*system().a));
    } else if (summary.relative_residual <= options_.relative_tolerance) {
      summary.termination = Termination::kConverged;
      summary.message = factored() ? "Cholesky" : "eigendecomposition";
    } else {
      summary.message = fmt::format("rounding leaves a residual of {:.1e} |b|: {}", summary.relative_residual,
                                    rounding_remedy(*system().a));
    }
  }

  DirectOptions options_;
  at::Tensor cholesky_;                        // [P, P], of the damped matrix where that is positive definite; else
  at::Tensor values_, vectors_;                // [P] ascending and [P, P], with the damping, and
  at::Tensor gains_;                           // [P], what the filter makes of the values
  bool indefinite_ = false, rounded_ = false;  // the damped matrix, and whether rounding explains that
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
    const bool factored = system.filter.inversion == Inversion::kDamped;
    const double bytes = (factored ? 16 : 34) * size * size;  // the second by what LAPACK's divide and conquer takes
    if (bytes > options_.max_bytes) {
      throw InvalidArgument(fmt::format(
          "direct: {} parameters need {:.1f} GB for the dense matrix and its {}, expected at most {:.1f} GB "
          "(option max-bytes); use {}",
          system.a->size(), bytes / 1e9, factored ? "factor" : "eigenvectors", options_.max_bytes / 1e9,
          system.filter.inverts() ? "cg" : "lanczos"));
    }
    return std::make_unique<DirectInverse>(system, options_);
  }

 private:
  DirectOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, direct, DirectSolver, DirectOptions)

}  // namespace whence
