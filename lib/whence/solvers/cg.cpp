// Block conjugate gradients: all right-hand sides minimise over one Krylov space, so that each gains from the others'
// products. D. O'Leary, "The block conjugate gradient algorithm and related methods", Linear Algebra and its
// Applications 29 (1980); the residuals held as an orthonormal basis and small factors, as in A. Dubrulle, "Retooling
// the method of block conjugate gradients", ETNA 12 (2001), without the directions that depend on others. A right-hand
// side leaves the block when it is done and its answer stays as it is.
//
// A residual says little where A is ill-conditioned: what it leaves out of A^-1 b may be most of it. The energy b'x
// grows towards b'A^-1 b, and what is missing is the square of the error's energy norm (M. Hestenes and E. Stiefel,
// "Methods of conjugate gradients for solving linear systems", 1952, theorem 6:1). What a number of last iterations
// added estimates what was missing before them, from below (Z. Strakos and P. Tichy, "On error estimation in the
// conjugate gradient method", ETNA 13 (2002)); that number grows with the iterations, as in G. Meurant, J. Papez and P.
// Tichy, "Accurate error estimation in CG", Numerical Algorithms 88 (2021), so that however slow the growth, it is
// seen.
//
// An iteration, with vectors in columns, the preconditioner M, and residuals B - A X = V S:
//   P <- orth(M V - P beta),  beta = (P'Q)^-1 Q' M V
//   Q = A P
//   X <- X + P alpha S,       alpha = (P'Q)^-1 P' V,   which adds diag(S' V'P alpha S) to the energies
//   V S <- (V - Q alpha) S,   factored anew
// Blocks hold vectors in rows: block_dots(P, Q) is P'Q, and combine(alpha, P) is P alpha.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/solvers/detail/blocks.h"
#include "whence/solvers/detail/preconditioner.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

using detail::block_dots;
using detail::combine;
using detail::SmallMatrix;

struct CgOptions {
  std::int64_t max_iterations = 1000;
  double relative_tolerance = 1e-6;
  std::int64_t residual_period = 50;
  detail::PreconditionerOptions preconditioning;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-iterations", self.max_iterations, kAtLeastOne, "most products to spend on a right-hand side");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "stop when |b - A x| <= this * |b|, and the last quarter of the iterations added <= this * b'x to b'x");
    field("residual-period", self.residual_period, kAtLeastOne,
          "iterations between true residuals b - A x, against drift");
    detail::PreconditionerOptions::fields(self.preconditioning, field);
  }
};

/// One block solve: the right-hand sides still at work, which are the active ones, and what is known of all.
class BlockCg {
 public:
  BlockCg(const CgOptions& options, const LinearSystem& system, const at::Tensor& b, const Progress& progress)
      : options_(options),
        system_(system),
        b_(b),
        progress_(progress),
        summaries_(static_cast<std::size_t>(b.size(0))),
        b_norms_(row_norms(b)),
        checks_(summaries_.size()),
        energies_(summaries_.size()),
        tolerance_(dependence(b.scalar_type())) {
    for (std::int64_t k = 0; k < b.size(0); ++k) {
      active_.push_back(k);
    }
    x_ = at::zeros_like(b);
    squares_ = row_dots(b, b);
    const auto sizes = at::where(b_norms_.gt(0), b_norms_, 1.0).unsqueeze(1).to(b.options());
    dependences_ = detail::to_tensor(detail::factor_rows(b / sizes, tolerance_).factors, at::kDouble);
    restart(b);
  }

  std::vector<SolverSummary> run(at::Tensor& x) {
    ProgressScope scope(progress_, {"solve", 0, options_.max_iterations, standing()});
    for (std::int64_t iteration = 1; !active_.empty() && iteration <= options_.max_iterations; ++iteration) {
      iterate(iteration);
      scope.at(iteration, standing() + (iteration >= kMany ? another_preconditioner() : ""));
    }
    finish_all(Termination::kIterationLimit, "iteration limit" + another_preconditioner());
    for (auto& summary : summaries_) {
      summary.smallest_ritz = smallest_ritz_;
      summary.largest_ritz = largest_ritz_;
    }
    x = x_;
    return std::move(summaries_);
  }

 private:
  // `i` counts the active right-hand sides, `k` all of them.
  double square(std::size_t i) const { return squares_.const_data_ptr<double>()[i]; }
  double b_norm(std::int64_t k) const { return b_norms_.const_data_ptr<double>()[k]; }
  bool converged(std::size_t i) const {
    const double residual = std::sqrt(square(i)), norm = b_norm(active_[i]);
    return residual <= options_.relative_tolerance * norm &&
           (residual <= kFloor * tolerance_ * norm || energy(i).growth() <= options_.relative_tolerance);
  }
  SolverSummary& summary(std::size_t i) { return summaries_[static_cast<std::size_t>(active_[i])]; }
  /// "3 of 8 solved, largest residual 1.2e-04".
  std::string standing() const {
    double largest = 0;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      largest = std::max(largest, std::sqrt(square(i)) / b_norm(active_[i]));
    }
    std::size_t solved = 0;
    for (const auto& summary : summaries_) {
      solved += summary.termination == Termination::kConverged ? 1 : 0;
      largest = std::max(largest, summary.relative_residual);
    }
    return fmt::format("{} of {} solved, largest residual {:.1e}", solved, summaries_.size(), largest);
  }
  /// "; --solver cg:preconditioner=nystroem may take fewer iterations", where that is another and measurements say so.
  std::string another_preconditioner() const {
    return system_.may_be_sketched && options_.preconditioning.preconditioner != "nystroem"
               ? "; --solver cg:preconditioner=nystroem may take fewer iterations"
               : "";
  }
  /// Where the active right-hand sides are in b and x.
  at::Tensor active() const { return at::tensor(active_, at::kLong).to(b_.device()); }

  void iterate(std::int64_t iteration) {
    update_directions();
    for (std::size_t i = 0; i < active_.size(); ++i) {
      summary(i).iterations = iteration;
    }
    if (directions_.size(0) == 0) {  // the residuals are not finite, or nothing but rounding
      finish_all(Termination::kIterationLimit, rounding_text());
      return;
    }
    products_ = system_.a->apply(directions_);
    const SmallMatrix pq = block_dots(directions_, products_);
    if (!pq.allFinite()) {
      finish_all(Termination::kIterationLimit, rounding_text());  // the last x is the best there is
      return;
    }
    const auto ritz = detail::eigenpairs(0.5 * (pq + pq.transpose()));
    const double smallest = ritz.values[0];
    smallest_ritz_ = std::fmin(smallest_ritz_, smallest);
    largest_ritz_ = std::fmax(largest_ritz_, ritz.values[ritz.values.size() - 1]);
    if (!(smallest > 0) && std::abs(smallest) <= system_.a->rounding() * largest_ritz_) {
      finish_all(Termination::kIterationLimit,
                 fmt::format("a direction p has p'Ap / p'p = {:.1e}, which is rounding beside the largest, {:.1e}: {}",
                             smallest, largest_ritz_, rounding_remedy(*system_.a)));
      return;
    }
    if (!(smallest > 0)) {
      finish_all(Termination::kIndefinite,
                 fmt::format("a direction p has p'Ap / p'p = {:.3e} at iteration {}", smallest, iteration));
      return;
    }
    const SmallMatrix weighed = ritz.vectors * ritz.values.cwiseInverse().asDiagonal();
    inverse_pq_ = weighed * ritz.vectors.transpose();
    const SmallMatrix pv = block_dots(directions_, basis_);
    const SmallMatrix alpha = inverse_pq_ * pv;
    x_.index_add_(0, active(), combine(alpha * factors_, directions_));
    const Eigen::VectorXd gains = (pv * factors_).cwiseProduct(alpha * factors_).colwise().sum();
    for (std::size_t i = 0; i < active_.size(); ++i) {
      energies_[static_cast<std::size_t>(active_[i])].grow(gains[static_cast<Eigen::Index>(i)]);
    }
    const auto residuals = detail::factor_rows(basis_ - combine(alpha, products_), tolerance_);
    basis_ = residuals.basis;
    factors_ = residuals.factors * factors_;
    const Eigen::VectorXd squares = factors_.colwise().squaredNorm();
    std::copy_n(squares.data(), squares.size(), squares_.data_ptr<double>());
    check_residuals(iteration % options_.residual_period == 0);
  }

  /// The span of the preconditioned residuals, made conjugate to the last directions.
  void update_directions() {
    auto next = system_.precondition ? system_.precondition(basis_) : basis_;
    if (products_.defined()) {
      const SmallMatrix beta = inverse_pq_ * block_dots(products_, next);
      next = next - combine(beta, directions_);
    }
    directions_ = detail::factor_rows(next, tolerance_).basis;
  }

  /// The recurrence drifts from b - A x: it is computed anew for all every so often, and for those that seem solved,
  /// which costs each a product. J. Nash and A. Sofer, "Linear and Nonlinear Programming", 1996, p. 396. The recurrence
  /// goes on from it where it is another, and not for rounding's sake: that would be directions that are conjugate to
  /// none before. H. van der Vorst and Q. Ye, "Residual replacement strategies for Krylov subspace iterative methods",
  /// SIAM J. Sci. Comput. 22 (2000).
  void check_residuals(bool all) {
    std::vector<std::int64_t> checked;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      if (all || converged(i)) {
        checked.push_back(static_cast<std::int64_t>(i));
      }
    }
    if (checked.empty()) {
      return;
    }
    const auto index = at::tensor(checked, at::kLong);
    const auto rows = active().index_select(0, index.to(b_.device()));
    const auto exact = b_.index_select(0, rows) - system_.a->apply(x_.index_select(0, rows));
    auto residuals = combine(factors_, basis_);
    const auto exact_squares = row_dots(exact, exact);
    const auto drifts = row_norms(exact - residuals.index_select(0, index.to(b_.device())));
    double drift = 0;
    bool negligible = true;
    for (std::size_t i = 0; i < checked.size(); ++i) {
      const double by_rounding = drifts.const_data_ptr<double>()[i];
      drift = std::max(drift, by_rounding / b_norm(active_[static_cast<std::size_t>(checked[i])]));
      negligible = negligible && by_rounding <= kNegligible * std::sqrt(exact_squares.const_data_ptr<double>()[i]);
    }
    if (!negligible) {
      residuals.index_copy_(0, index.to(b_.device()), exact);
    }
    note_stalls(checked, squares_.index_select(0, index), exact_squares);
    squares_.index_copy_(0, index, exact_squares);
    restart(residuals, negligible ? 0 : drift);
  }

  /// Rounding has the last word when the recurrence falls and b - A x does not follow (four times in a row), or when
  /// b - A x has not lost a tenth of its least size in twenty checks.
  void note_stalls(const std::vector<std::int64_t>& checked, const at::Tensor& recurred, const at::Tensor& exact) {
    for (std::size_t i = 0; i < checked.size(); ++i) {
      auto& check = checks_[static_cast<std::size_t>(active_[static_cast<std::size_t>(checked[i])])];
      const double now = exact.const_data_ptr<double>()[i];
      check.drifts = now > 4 * recurred.const_data_ptr<double>()[i] ? check.drifts + 1 : 0;
      check.idle = now < 0.81 * check.least ? 0 : check.idle + 1;
      check.least = std::min(check.least, now);
    }
  }

  /// Goes on from the residuals of the active right-hand sides, without those that are solved or that rounding holds.
  /// `drift` is the most that rounding made of a residual, relative to |b|; 0: none of them was replaced.
  void restart(const at::Tensor& residuals, double drift = 0) {
    std::vector<std::int64_t> remaining, kept;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const auto& check = checks_[static_cast<std::size_t>(active_[i])];
      if (converged(i)) {
        finish(i, Termination::kConverged, "converged");
      } else if (check.drifts >= kMostDrifts || check.idle >= kMostIdle) {
        finish(i, Termination::kIterationLimit, rounding_text());
      } else {
        remaining.push_back(active_[i]);
        kept.push_back(static_cast<std::int64_t>(i));
      }
    }
    const auto index = at::tensor(kept, at::kLong);
    squares_ = squares_.index_select(0, index);
    active_ = std::move(remaining);
    if (active_.empty()) {
      return;
    }
    // In units of |b|: what is left of a residual below the rounding of b - A x is no direction. Where right-hand sides
    // depend on each other, so do their residuals but for rounding, and a direction made of that is conjugate to none
    // before: with it each restart would lose what the Krylov space had.
    const auto norms = b_norms_.index_select(0, at::tensor(active_, at::kLong)).unsqueeze(1);
    auto scaled = residuals.index_select(0, index.to(b_.device())) / norms.to(b_.options());
    if (const auto projection = independent(); projection.size() > 0) {
      scaled = combine(projection, scaled);
    }
    const double least = (squares_.sqrt() / norms.squeeze(1)).min().item<double>();
    const double rounding = std::min(drift, kNegligible * least);
    auto [basis, factors] = detail::factor_rows(scaled, 0, std::max(rounding, kFloor * tolerance_));
    basis_ = basis;
    factors_ = factors * detail::to_matrix(norms).col(0).asDiagonal();
  }

  /// The projection of as many numbers as there are active right-hand sides that takes from them what contradicts how
  /// these depend on each other; empty where they do not.
  SmallMatrix independent() const {
    if (dependences_.size(0) == 0) {  // b is not finite
      return {};
    }
    const auto columns = dependences_.index_select(1, at::tensor(active_, at::kLong));
    const auto [u, values, vt] = at::linalg_svd(columns, /*full_matrices=*/false);
    const auto rank = values.gt(tolerance_ * values[0]).sum().item<std::int64_t>();
    if (rank == columns.size(1)) {
      return {};
    }
    const auto rows = vt.narrow(0, 0, rank);
    return detail::to_matrix(rows.t().mm(rows));
  }

  void finish(std::size_t i, Termination termination, const std::string& message) {
    const double norm = b_norm(active_[i]);
    summary(i).termination = termination;
    summary(i).message = message;
    summary(i).relative_residual = norm > 0 ? std::sqrt(square(i)) / norm : 0;
    summary(i).energy_growth = energy(i).growth();
    if (termination == Termination::kIterationLimit && summary(i).relative_residual <= options_.relative_tolerance) {
      summary(i).message +=
          fmt::format("; the residual is small, but the last quarter of the iterations added {:.1e} of b'x",
                      summary(i).energy_growth);
    }
  }
  /// With b - A x: the recurrence may be anything where it did not end.
  void finish_all(Termination termination, const std::string& message) {
    if (active_.empty()) {
      return;
    }
    const auto rows = active();
    const auto residuals = b_.index_select(0, rows) - system_.a->apply(x_.index_select(0, rows));
    squares_ = row_dots(residuals, residuals);
    for (std::size_t i = 0; i < active_.size(); ++i) {
      finish(i, termination, message);
    }
    active_.clear();
  }

  /// What b - A x of one right-hand side has shown so far.
  struct Checks {
    int drifts = 0, idle = 0;
    double least = INFINITY;  ///< Its least square.
  };
  static constexpr int kMostDrifts = 4, kMostIdle = 20;
  /// Iterations after which another preconditioner is named.
  static constexpr std::int64_t kMany = 50;
  /// Times tolerance_ and |b|: a residual that holds no direction.
  static constexpr double kFloor = 0.1;
  /// Times a residual: what of it may wait for the next true residual.
  static constexpr double kNegligible = 0.01;

  /// b'x of one right-hand side.
  class Energy {
   public:
    void grow(double gain) { sums_.push_back(sums_.back() + gain); }
    /// The share that the last quarter of the iterations added, the last one at least.
    double growth() const {
      const auto k = sums_.size() - 1, delay = (k + 3) / 4;
      const double now = sums_.back();
      return now > 0 ? (now - sums_[k - delay]) / now : 0;
    }

   private:
    std::vector<double> sums_{0};
  };
  const Energy& energy(std::size_t i) const { return energies_[static_cast<std::size_t>(active_[i])]; }
  std::string rounding_text() const {
    return "the residual no longer falls: rounding, or a system too ill-conditioned; " + rounding_remedy(*system_.a);
  }
  const CgOptions& options_;
  const LinearSystem& system_;
  const at::Tensor& b_;
  const Progress& progress_;
  at::Tensor x_;
  std::vector<SolverSummary> summaries_;
  at::Tensor b_norms_;
  at::Tensor dependences_;  // b / |b| in as many directions as it has: [directions, rows of b]
  std::vector<Checks> checks_;
  std::vector<Energy> energies_;
  double tolerance_;                  // where rounding hides a direction
  std::vector<std::int64_t> active_;  // rows of b
  at::Tensor basis_;                  // V, orthonormal: at most as many rows as are active
  SmallMatrix factors_;               // S: the residual of active_[i] is sum_j S(j, i) V_j
  at::Tensor squares_;                // of the residuals' norms
  at::Tensor directions_, products_;  // P, orthonormal, and Q = A P: at most as many rows as are active
  SmallMatrix inverse_pq_;            // (P'Q)^-1
  double smallest_ritz_ = NAN, largest_ritz_ = NAN;
};

class CgSolver : public detail::PreconditionedSolver<CgOptions, BlockCg> {
 public:
  using PreconditionedSolver::PreconditionedSolver;
  ProductCount product_count(const SystemTraits& traits) const override {
    auto out = ProductCount::up_to(static_cast<double>(std::min(options().max_iterations, traits.parameters)));
    if (options().preconditioning.preconditioner == "nystroem") {
      out.once = static_cast<double>(std::min(options().preconditioning.rank, traits.parameters)) *
                 (traits.inversion == Inversion::kDamped ? 1 : 2);
    }
    return out;
  }
};

}  // namespace

WHENCE_METHOD(Solver, cg, CgSolver, CgOptions)

}  // namespace whence
