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
    best_.assign(summaries_.size(), INFINITY);
    stalled_.assign(summaries_.size(), 0);
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
      } else {
        summary.termination = Termination::kIndefinite;
        summary.message = fmt::format("a direction p has p'Ap / p'p = {:.3e} at iteration {}",
                                      bend / length.const_data_ptr<double>()[i], iteration);
        indefinite.push_back(static_cast<std::int64_t>(i));
      }
    }
    const auto steps = alpha.to(b_.options()).unsqueeze(1);
    x_.index_add_(0, rows(), steps * direction_);
    residual_.sub_(steps * image);
    auto next = row_dots(residual_, residual_);
    if (iteration % options_.residual_period == 0 || any_below_target(next)) {
      residual_ = b_.index_select(0, rows()) - a_.apply(x_.index_select(0, rows()));
      next = row_dots(residual_, residual_);
      note_stalls(next);
    }
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

  bool any_below_target(const at::Tensor& squares) const {
    for (std::size_t i = 0; i < active_.size(); ++i) {
      if (std::sqrt(squares.const_data_ptr<double>()[i]) <= target(active_[i])) {
        return true;
      }
    }
    return false;
  }

  /// Rounding has the last word when true residuals no longer shrink: the fourth in a row without a tenth less than the
  /// best.
  void note_stalls(const at::Tensor& squares) {
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const auto row = static_cast<std::size_t>(active_[i]);
      const double size = std::sqrt(squares.const_data_ptr<double>()[i]);
      stalled_[row] = size < 0.9 * best_[row] ? 0 : stalled_[row] + 1;
      best_[row] = std::min(best_[row], size);
    }
  }
  bool row_stalled(std::int64_t position) {
    const auto row = static_cast<std::size_t>(active_[static_cast<std::size_t>(position)]);
    if (stalled_[row] < kStallLimit) {
      return false;
    }
    summaries_[row].message = "rounding stopped the progress: use float64";
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

  static constexpr int kStallLimit = 4;
  const CgOptions& options_;
  const LinearOperator& a_;
  const at::Tensor& b_;
  at::Tensor& x_;
  std::vector<SolverSummary> summaries_;
  std::vector<std::int64_t> active_;  // rows of b still at work; the tensors below hold these rows alone
  at::Tensor residual_, direction_, rho_, norms_;
  std::vector<double> best_;
  std::vector<int> stalled_;
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
