// The inverse on the span of the leading eigenvectors. A. Schioppa, P. Zablotskaia, D. Vilar and A. Sokolov, "Scaling
// Up Influence Functions", AAAI 2022, section 3; the eigenpairs by implicitly restarted Lanczos, from Spectra.
#include <ATen/ATen.h>
#include <Spectra/SymEigsSolver.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/core/symmetric_eigen.h"
#include "whence/solvers/detail/blocks.h"
#include "whence/solvers/detail/dense.h"
#include "whence/solvers/detail/low_rank.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct ArnoldiOptions {
  std::int64_t rank = 50;
  std::int64_t iterations = 300;
  double eigenvalue_tolerance = 1e-3;
  bool complement = true;
  double relative_tolerance = 1e-6;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "eigenpairs of largest magnitude to keep; finding them holds twice as many");
    field("iterations", self.iterations, kAtLeastOne,
          "products to spend on the eigenpairs, once; those not found by then are left out");
    field("eigenvalue-tolerance", self.eigenvalue_tolerance, kUnitInterval,
          "an eigenpair is found when |A e - h e| <= this * |h|");
    field("complement", self.complement, kAny,
          "1 / damping on the complement of their span; false: nothing there, as in the paper");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "converged means |b - A x| <= this * |b|; the work does not depend on it");
    field("seed", self.seed, kAtLeastZero, "of the start");
  }
};

/// An operator as Spectra wants it.
class Products {
 public:
  using Scalar = double;
  explicit Products(const LinearOperator& a) : a_(a) {}
  Eigen::Index rows() const { return a_.size(); }
  Eigen::Index cols() const { return a_.size(); }
  void perform_op(const double* in, double* out) const {
    const auto x = at::from_blob(const_cast<double*>(in), {1, a_.size()}, at::kDouble).to(a_.options(), false, true);
    const auto y = a_.apply(x).to(at::kCPU, at::kDouble).contiguous();
    if (!at::isfinite(y).all().item<bool>()) {
      throw NumericalError("arnoldi: a product with the curvature is not finite");
    }
    std::copy_n(y.const_data_ptr<double>(), a_.size(), out);
  }

 private:
  const LinearOperator& a_;
};

detail::LowRank all_eigenpairs(const LinearOperator& a) {
  const auto [values, vectors] = symmetric_eigen(detail::dense_matrix(a, "arnoldi"), "arnoldi: the curvature");
  const auto largest_first = values.flip(0);
  return {.values = Eigen::Map<const Eigen::VectorXd>(largest_first.const_data_ptr<double>(), a.size()),
          .vectors = vectors.t().flip(0).to(algebra_options(a.options()))};
}

detail::LowRank leading_eigenpairs(const LinearOperator& a, const ArnoldiOptions& options) {
  const auto span = std::min(a.size(), std::min(options.iterations, std::max(2 * options.rank, options.rank + 20)));
  const auto rank = std::min(options.rank, span - 1);
  if (rank < 1) {
    throw InvalidArgument(fmt::format("arnoldi: option iterations = {}, expected >= 2", options.iterations));
  }
  const auto start = Random(static_cast<std::uint64_t>(options.seed)).stream("arnoldi").normal({a.size()});
  Products products(a);
  Spectra::SymEigsSolver<Products> solver(products, rank, span);
  solver.init(start.const_data_ptr<double>());
  const auto restarts = 1 + (options.iterations - span) / (span - rank);
  solver.compute(Spectra::SortRule::LargestMagn, restarts, options.eigenvalue_tolerance,
                 Spectra::SortRule::LargestAlge);
  return {.values = solver.eigenvalues(),
          .vectors = detail::to_tensor(solver.eigenvectors().transpose(), algebra_options(a.options()))};
}

class ArnoldiSolver : public Solver {
 public:
  explicit ArnoldiSolver(ArnoldiOptions options) : options_(options) {}
  bool needs_damping(std::int64_t parameters) const override {
    return options_.complement && options_.rank < parameters;
  }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    const bool all = options_.rank >= system.a->size();
    if (needs_damping(system.a->size()) && system.filter.inversion == Inversion::kDamped &&
        system.filter.damping == 0) {
      throw InvalidArgument(
          "arnoldi: damping = 0, expected > 0: the complement of the eigenvectors is divided by it; use --damping "
          "auto, or --solver arnoldi:complement=false");
    }
    auto part = all ? all_eigenpairs(*system.a) : leading_eigenpairs(*system.a, options_);
    auto name = fmt::format("rank-{} arnoldi", part.values.size());
    if (!all && part.values.size() < options_.rank) {
      name += fmt::format(" (of {} eigenpairs asked for, the others were not found in {} iterations)", options_.rank,
                          options_.iterations);
    }
    return std::make_unique<detail::LowRankInverse>(system, std::move(part), options_.complement,
                                                    options_.relative_tolerance, std::move(name));
  }

 private:
  ArnoldiOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, arnoldi, ArnoldiSolver, ArnoldiOptions)

}  // namespace whence
