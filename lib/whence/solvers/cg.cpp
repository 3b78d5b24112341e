// Conjugate gradients. M. Hestenes and E. Stiefel, "Methods of conjugate gradients for solving linear systems", 1952. A
// block of right-hand sides shares the passes over the data; each has its own recurrence, and leaves the block when it
// is done, so that no row depends on another and a converged row stays as it is.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/tensors.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct CgOptions {
  std::int64_t max_iterations = 1000;
  double relative_tolerance = 1e-6;
  std::int64_t residual_period = 50;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-iterations", self.max_iterations, kAtLeastOne, "most products to spend on a right-hand side");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval, "stop when |b - A x| <= this * |b|");
    field("residual-period", self.residual_period, kAtLeastOne,
          "iterations between true residuals b - A x, against drift");
  }
};

/// One block solve: the rows still at work, and what is known of all.
class CgRun {
 public:
  CgRun(const CgOptions& options, const LinearOperator& a, const at::Tensor& b, at::Tensor& x)
      : options_(options), a_(a), b_(b), x_(x), summaries_(static_cast<std::size_t>(b.size(0))) {
    norms_ = row_norms(b);
    for (std::int64_t k = 0; k < b.size(0); ++k) {
      active_.push_back(k);
    }
    residual_ = b - a.apply(x);
    direction_ = residual_.clone();
    rho_ = row_dots(residual_, residual_);
    looks_.resize(summaries_.size());
  }

  std::vector<SolverSummary> run(const Progress& progress) {
    retire([&](std::int64_t row) { return row_converged(row); });
    for (std::int64_t iteration = 1; !active_.empty() && iteration <= options_.max_iterations; ++iteration) {
      step(iteration);
      const auto done = static_cast<std::int64_t>(summaries_.size() - active_.size());
      report(progress,
             {"solve", iteration, options_.max_iterations,
              fmt::format("{} of {} solved, largest residual {:.1e}", done, summaries_.size(), largest_residual())});
    }
    finish(active_, Termination::kIterationLimit, "iteration limit");
    return std::move(summaries_);
  }

 private:
  double target(std::int64_t row) const { return options_.relative_tolerance * norms_[row].item<double>(); }
  double& rho(std::size_t position) const { return rho_.data_ptr<double>()[position]; }
  bool row_converged(std::int64_t position) const {
    return std::sqrt(rho(static_cast<std::size_t>(position))) <= target(active_[static_cast<std::size_t>(position)]);
  }
  double largest_residual() const {
    double largest = 0;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      largest = std::max(largest, std::sqrt(rho(i)) / norms_[active_[i]].item<double>());
    }
    return largest;
  }

  void step(std::int64_t iteration) {
    const auto image = a_.apply(direction_);
    const auto curvature = row_dots(direction_, image);
    const auto length = row_dots(direction_, direction_);
    auto alpha = at::zeros_like(rho_);
    std::vector<std::int64_t> indefinite;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const double bend = curvature.const_data_ptr<double>()[i];
      auto& summary = summaries_[static_cast<std::size_t>(active_[i])];
      summary.iterations = iteration;
      if (bend > 0) {
        alpha.data_ptr<double>()[i] = rho(i) / bend;
      } else if (!std::isfinite(bend)) {
        looks_[static_cast<std::size_t>(active_[i])].idle = kMostIdle;  // the last x is the best there is
      } else {
        summary.termination = Termination::kIndefinite;
        summary.message = fmt::format("a direction p has p'Ap / p'p = {:.3e} at iteration {}",
                                      bend / length.const_data_ptr<double>()[i], iteration);
        indefinite.push_back(static_cast<std::int64_t>(i));
      }
    }
    if (!at::isfinite(alpha).all().item<bool>()) {
      alpha.nan_to_num_(0, 0, 0);
    }
    const auto steps = alpha.to(b_.options()).unsqueeze(1);
    x_.index_add_(0, rows(), steps * direction_);
    residual_.sub_(steps * image);
    auto next = row_dots(residual_, residual_);
    replace_by_true_residuals(next, iteration % options_.residual_period == 0);
    const auto beta = (next / rho_).to(b_.options()).unsqueeze(1);
    direction_ = residual_ + beta * direction_;
    rho_ = next;
    retire([&](std::int64_t position) {
      const auto row = static_cast<std::size_t>(active_[static_cast<std::size_t>(position)]);
      if (summaries_[row].termination == Termination::kIndefinite) {
        summaries_[row].relative_residual =
            std::sqrt(rho(static_cast<std::size_t>(position))) / norms_[static_cast<std::int64_t>(row)].item<double>();
        return true;
      }
      return row_converged(position) || row_stalled(position);
    });
  }

  at::Tensor rows() const { return at::tensor(active_, at::kLong).to(b_.device()); }

  /// The recurrence drifts from b - A x: it is computed anew for every row now and then, and for a row that seems
  /// solved, which costs those rows a product. J. Nash and A. Sofer, "Linear and Nonlinear Programming", 1996, p. 396.
  void replace_by_true_residuals(at::Tensor& squares, bool all) {
    std::vector<std::int64_t> positions;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      if (all || std::sqrt(squares.const_data_ptr<double>()[i]) <= target(active_[i])) {
        positions.push_back(static_cast<std::int64_t>(i));
      }
    }
    if (positions.empty()) {
      return;
    }
    const auto index = at::tensor(positions, at::kLong);
    const auto there = rows().index_select(0, index.to(b_.device()));
    const auto fresh = b_.index_select(0, there) - a_.apply(x_.index_select(0, there));
    residual_.index_copy_(0, index.to(b_.device()), fresh);
    const auto fresh_squares = row_dots(fresh, fresh);
    note_stalls(positions, squares.index_select(0, index), fresh_squares);
    squares.index_copy_(0, index, fresh_squares);
  }

  /// Rounding has the last word when the recurrence falls and b - A x does not follow (four times in a row), or when b
  /// - A x has not lost a tenth of its least size in twenty looks.
  void note_stalls(const std::vector<std::int64_t>& positions, const at::Tensor& recurred, const at::Tensor& squares) {
    for (std::size_t i = 0; i < positions.size(); ++i) {
      auto& look = looks_[static_cast<std::size_t>(active_[static_cast<std::size_t>(positions[i])])];
      const double square = squares.const_data_ptr<double>()[i];
      look.drifts = square > 4 * recurred.const_data_ptr<double>()[i] ? look.drifts + 1 : 0;
      look.idle = square < 0.81 * look.least ? 0 : look.idle + 1;
      look.least = std::min(look.least, square);
    }
  }
  bool row_stalled(std::int64_t position) {
    const auto row = static_cast<std::size_t>(active_[static_cast<std::size_t>(position)]);
    if (looks_[row].drifts < kMostDrifts && looks_[row].idle < kMostIdle) {
      return false;
    }
    summaries_[row].message =
        "the residual no longer falls: rounding, or a system too ill-conditioned; use float64 or raise the damping";
    return true;
  }

  template <class Done>
  void retire(const Done& done) {
    std::vector<std::int64_t> kept, positions;
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const auto position = static_cast<std::int64_t>(i);
      if (!done(position)) {
        kept.push_back(active_[i]);
        positions.push_back(position);
        continue;
      }
      auto& summary = summaries_[static_cast<std::size_t>(active_[i])];
      const double norm = norms_[active_[i]].item<double>();
      summary.relative_residual = norm > 0 ? std::sqrt(rho(i)) / norm : 0;
      if (row_converged(position)) {
        summary.termination = Termination::kConverged;
        summary.message = "converged";
      }
    }
    if (kept.size() == active_.size()) {
      return;
    }
    active_ = std::move(kept);
    const auto index = at::tensor(positions, at::kLong);
    residual_ = residual_.index_select(0, index.to(b_.device()));
    direction_ = direction_.index_select(0, index.to(b_.device()));
    rho_ = rho_.index_select(0, index);
  }

  void finish(const std::vector<std::int64_t>& left, Termination termination, const char* message) {
    for (std::size_t i = 0; i < left.size(); ++i) {
      auto& summary = summaries_[static_cast<std::size_t>(left[i])];
      summary.termination = termination;
      summary.message = message;
      summary.relative_residual = std::sqrt(rho(i)) / norms_[left[i]].item<double>();
    }
  }

  /// What the true residuals of a row have shown so far.
  struct Looks {
    int drifts = 0, idle = 0;
    double least = INFINITY;  ///< Square of the least.
  };
  static constexpr int kMostDrifts = 4, kMostIdle = 20;
  const CgOptions& options_;
  const LinearOperator& a_;
  const at::Tensor& b_;
  at::Tensor& x_;
  std::vector<SolverSummary> summaries_;
  std::vector<std::int64_t> active_;  // rows of b still at work; the tensors below hold these rows alone
  at::Tensor residual_, direction_, rho_, norms_;
  std::vector<Looks> looks_;
};

class CgSolver : public IterativeSolver {
 public:
  explicit CgSolver(CgOptions options) : options_(options) {}
  std::vector<SolverSummary> solve(const LinearOperator& a, const at::Tensor& b, at::Tensor& x,
                                   const Progress& progress) const override {
    return CgRun(options_, a, b, x).run(progress);
  }

 private:
  CgOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, cg, CgSolver, CgOptions)

}  // namespace whence
