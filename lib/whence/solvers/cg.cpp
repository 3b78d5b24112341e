// Block conjugate gradients: all right-hand sides minimise over one Krylov space, so that each gains from the others'
// products. D. O'Leary, "The block conjugate gradient algorithm and related methods", Linear Algebra and its
// Applications 29 (1980); the residuals held as an orthonormal basis and small factors, as in A. Dubrulle, "Retooling
// the method of block conjugate gradients", ETNA 12 (2001), without the directions that depend on others. A row leaves
// the block when it is done and stays as it is.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <Eigen/Eigenvalues>
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
  std::string preconditioner = "none";
  std::int64_t rank = 100;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-iterations", self.max_iterations, kAtLeastOne, "most products to spend on a right-hand side");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval, "stop when |b - A x| <= this * |b|");
    field("residual-period", self.residual_period, kAtLeastOne,
          "iterations between true residuals b - A x, against drift");
    field("preconditioner", self.preconditioner, detail::kPreconditioners, detail::kPreconditionerHelp);
    field("rank", self.rank, kAtLeastOne, "of preconditioner nystroem, which costs as many products, once");
  }
};

/// One block solve: the rows still at work, and what is known of all.
class CgRun {
 public:
  CgRun(const CgOptions& options, const LinearSystem& system, const at::Tensor& b, at::Tensor& x)
      : options_(options),
        system_(system),
        b_(b),
        x_(x),
        summaries_(static_cast<std::size_t>(b.size(0))),
        norms_(row_norms(b)),
        looks_(summaries_.size()),
        tolerance_(dependence(b.scalar_type())) {
    for (std::int64_t k = 0; k < b.size(0); ++k) {
      active_.push_back(k);
    }
    x_ = at::zeros_like(b);
    residual_ = b.clone();
    squares_ = row_dots(b, b);
    retire();
  }

  std::vector<SolverSummary> run(const Progress& progress) {
    ProgressScope scope(progress, {"solve", 0, options_.max_iterations, standing()});
    for (std::int64_t iteration = 1; !active_.empty() && iteration <= options_.max_iterations; ++iteration) {
      step(iteration);
      scope.at(iteration, standing());
    }
    finish_all(Termination::kIterationLimit, "iteration limit");
    for (auto& summary : summaries_) {
      summary.smallest_ritz = smallest_ritz_;
      summary.largest_ritz = largest_ritz_;
    }
    return std::move(summaries_);
  }

 private:
  double square(std::size_t position) const { return squares_.const_data_ptr<double>()[position]; }
  double norm(std::int64_t row) const { return norms_.const_data_ptr<double>()[row]; }
  double target(std::int64_t row) const { return options_.relative_tolerance * norm(row); }
  SolverSummary& summary(std::size_t position) { return summaries_[static_cast<std::size_t>(active_[position])]; }
  /// "3 of 8 solved, largest residual 1.2e-04".
  std::string standing() const {
    double largest = 0;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      largest = std::max(largest, std::sqrt(square(i)) / norm(active_[i]));
    }
    std::size_t solved = 0;
    for (const auto& summary : summaries_) {
      solved += summary.termination == Termination::kConverged ? 1 : 0;
      largest = std::max(largest, summary.relative_residual);
    }
    return fmt::format("{} of {} solved, largest residual {:.1e}", solved, summaries_.size(), largest);
  }
  at::Tensor rows() const { return at::tensor(active_, at::kLong).to(b_.device()); }

  /// Minimises over x + the directions for every active row at once, and finds the next directions.
  void step(std::int64_t iteration) {
    renew_directions();
    for (std::size_t i = 0; i < active_.size(); ++i) {
      summary(i).iterations = iteration;
    }
    if (directions_.size(0) == 0) {  // the residuals are not finite, or nothing but rounding
      finish_all(Termination::kIterationLimit, rounding_text());
      return;
    }
    images_ = system_.a->apply(directions_);
    const SmallMatrix bend = block_dots(directions_, images_);
    if (!bend.allFinite()) {
      finish_all(Termination::kIterationLimit, rounding_text());  // the last x is the best there is
      return;
    }
    const Eigen::SelfAdjointEigenSolver<SmallMatrix> ritz(0.5 * (bend + bend.transpose()));
    const double smallest = ritz.eigenvalues().minCoeff();
    smallest_ritz_ = std::fmin(smallest_ritz_, smallest);
    largest_ritz_ = std::fmax(largest_ritz_, ritz.eigenvalues().maxCoeff());
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
    inverse_bend_ =
        ritz.eigenvectors() * ritz.eigenvalues().cwiseInverse().asDiagonal() * ritz.eigenvectors().transpose();
    const SmallMatrix steps = inverse_bend_ * block_dots(directions_, basis_);
    x_.index_add_(0, rows(), combine(steps * factors_, directions_));
    const auto left = detail::factor_rows(basis_ - combine(steps, images_), tolerance_);
    basis_ = left.basis;
    factors_ = left.factors * factors_;
    const Eigen::VectorXd squares = factors_.colwise().squaredNorm();
    std::copy_n(squares.data(), squares.size(), squares_.data_ptr<double>());
    look(iteration % options_.residual_period == 0);
  }

  /// The preconditioned residuals' span, made conjugate to the last directions.
  void renew_directions() {
    auto next = system_.precondition ? system_.precondition(basis_) : basis_;
    if (images_.defined()) {
      next = next - combine(inverse_bend_ * block_dots(images_, next), directions_);
    }
    directions_ = detail::factor_rows(next, tolerance_).basis;
  }

  /// The recurrence drifts from b - A x: it is computed anew for every row now and then, and for a row that seems
  /// solved, which costs those rows a product. J. Nash and A. Sofer, "Linear and Nonlinear Programming", 1996, p. 396.
  void look(bool all) {
    std::vector<std::int64_t> positions;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      if (all || std::sqrt(square(i)) <= target(active_[i])) {
        positions.push_back(static_cast<std::int64_t>(i));
      }
    }
    if (positions.empty()) {
      return;
    }
    const auto index = at::tensor(positions, at::kLong);
    const auto there = rows().index_select(0, index.to(b_.device()));
    const auto fresh = b_.index_select(0, there) - system_.a->apply(x_.index_select(0, there));
    residual_ = combine(factors_, basis_);
    residual_.index_copy_(0, index.to(b_.device()), fresh);
    const auto fresh_squares = row_dots(fresh, fresh);
    note_stalls(positions, squares_.index_select(0, index), fresh_squares);
    squares_.index_copy_(0, index, fresh_squares);
    retire();
  }

  /// Rounding has the last word when the recurrence falls and b - A x does not follow (four times in a row), or when b
  /// - A x has not lost a tenth of its least size in twenty looks.
  void note_stalls(const std::vector<std::int64_t>& positions, const at::Tensor& recurred, const at::Tensor& fresh) {
    for (std::size_t i = 0; i < positions.size(); ++i) {
      auto& seen = looks_[static_cast<std::size_t>(active_[static_cast<std::size_t>(positions[i])])];
      const double now = fresh.const_data_ptr<double>()[i];
      seen.drifts = now > 4 * recurred.const_data_ptr<double>()[i] ? seen.drifts + 1 : 0;
      seen.idle = now < 0.81 * seen.least ? 0 : seen.idle + 1;
      seen.least = std::min(seen.least, now);
    }
  }

  /// Takes the rows that are solved, or that rounding holds, out of the block, and factors what is left.
  void retire() {
    std::vector<std::int64_t> kept, positions;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const auto& seen = looks_[static_cast<std::size_t>(active_[i])];
      if (std::sqrt(square(i)) <= target(active_[i])) {
        finish(i, Termination::kConverged, "converged");
      } else if (seen.drifts >= kMostDrifts || seen.idle >= kMostIdle) {
        finish(i, Termination::kIterationLimit, rounding_text());
      } else {
        kept.push_back(active_[i]);
        positions.push_back(static_cast<std::int64_t>(i));
      }
    }
    const auto index = at::tensor(positions, at::kLong);
    squares_ = squares_.index_select(0, index);
    active_ = std::move(kept);
    if (active_.empty()) {
      return;
    }
    // in units of |b|: what is left of a row below the rounding of b - A x is no direction
    const auto sizes = norms_.index_select(0, at::tensor(active_, at::kLong)).unsqueeze(1);
    const auto left = residual_.index_select(0, index.to(b_.device())) / sizes.to(b_.options());
    auto [basis, factors] = detail::factor_rows(left, 0, 0.1 * tolerance_);
    basis_ = basis;
    factors_ = factors * detail::to_matrix(sizes).col(0).asDiagonal();
    residual_ = at::Tensor();
  }

  void finish(std::size_t position, Termination termination, const std::string& message) {
    const double size = norm(active_[position]);
    summary(position).termination = termination;
    summary(position).message = message;
    summary(position).relative_residual = size > 0 ? std::sqrt(square(position)) / size : 0;
  }
  /// With the true residuals: the recurrence's own may be anything where it did not end.
  void finish_all(Termination termination, const std::string& message) {
    if (active_.empty()) {
      return;
    }
    const auto there = rows();
    squares_ = b_.index_select(0, there) - system_.a->apply(x_.index_select(0, there));
    squares_ = row_dots(squares_, squares_);
    for (std::size_t i = 0; i < active_.size(); ++i) {
      finish(i, termination, message);
    }
    active_.clear();
  }

  /// What the true residuals of a row have shown so far.
  struct Looks {
    int drifts = 0, idle = 0;
    double least = INFINITY;  ///< Square of the least.
  };
  static constexpr int kMostDrifts = 4, kMostIdle = 20;
  std::string rounding_text() const {
    return "the residual no longer falls: rounding, or a system too ill-conditioned; " + rounding_remedy(*system_.a);
  }
  const CgOptions& options_;
  const LinearSystem& system_;
  const at::Tensor& b_;
  at::Tensor& x_;
  std::vector<SolverSummary> summaries_;
  at::Tensor norms_;
  std::vector<Looks> looks_;
  double tolerance_;                  // where rounding hides a direction
  std::vector<std::int64_t> active_;  // rows of b still at work
  at::Tensor basis_;                  // their residuals' span, orthonormal: at most as many rows as are active
  SmallMatrix factors_;               // residual k is sum_j factors_(j, k) basis_j
  at::Tensor squares_;                // and its square
  at::Tensor residual_;               // themselves, while they are looked at
  at::Tensor directions_, images_;    // P, orthonormal, and A P: at most as many rows as are active
  SmallMatrix inverse_bend_;          // (P' A P)^-1
  double smallest_ritz_ = NAN, largest_ritz_ = NAN;
};

class CgSolver : public IterativeSolver {
 public:
  explicit CgSolver(CgOptions options) : options_(std::move(options)) {}
  std::vector<SolverSummary> solve(const LinearSystem& system, const at::Tensor& b, at::Tensor& x,
                                   const Progress& progress) const override {
    return CgRun(options_, system, b, x).run(progress);
  }

 protected:
  BlockMap preconditioner(const System& system) const override {
    return detail::make_preconditioner(system, options_.preconditioner, options_.rank);
  }

 private:
  CgOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, cg, CgSolver, CgOptions)

}  // namespace whence
