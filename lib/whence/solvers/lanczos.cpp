// f(A) b for any function of the eigenvalues, from the Krylov space of b. V. Druskin and L. Knizhnerman, "Two
// polynomial methods of calculating functions of symmetric matrices", 1989; N. Higham, "Functions of Matrices", 2008,
// section 13.2. All right-hand sides step together, so that they share the passes over the data.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/tensors.h"
#include "whence/solvers/detail/krylov.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct LanczosOptions {
  std::int64_t max_iterations = 300;
  double relative_tolerance = 1e-6;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-iterations", self.max_iterations, kAtLeastOne,
          "most products to spend on a right-hand side; holds as many vectors for each");
    field(
        "relative-tolerance", self.relative_tolerance, kUnitInterval,
        "stop when |b - A x| <= this * |b|, and where the filter is not damped, when x moves by less than this * |x|");
  }
};

/// One right-hand side: its space, and the answer's coordinates in it.
class LanczosRow {
 public:
  LanczosRow(const at::Tensor& b, const System& system)
      : filter_(system.filter), a_(*system.a), space_(b), done_(space_.exhausted()) {}

  detail::KrylovSpace* space() { return &space_; }
  bool done() const { return done_; }
  at::Tensor answer() const { return space_.combine(factors_); }

  /// The answer in the space as it is now, and whether that will do; indefinite and finished rows are done.
  void update(double tolerance) {
    const auto ritz = space_.ritz();
    const double damping = filter_.inversion == Inversion::kDamped ? filter_.damping : 0;
    smallest_ = ritz.values.minCoeff() + damping;
    largest_ = ritz.values.maxCoeff() + damping;
    if (filter_.inversion == Inversion::kDamped && !(smallest_ > 1e-16 * largest_)) {
      (std::abs(smallest_) <= a_.rounding() * largest_ ? rounded_ : indefinite_) = true;
      done_ = true;
      return;
    }
    const Eigen::VectorXd now =
        space_.start_norm() * (ritz.vectors * gains(ritz.values).cwiseProduct(ritz.vectors.row(0).transpose()));
    Eigen::VectorXd change = now;
    change.head(factors_.size()) -= factors_;
    const double moved = now.norm() > 0 ? change.norm() / now.norm() : 0;
    change_ = filter_.inversion == Inversion::kDamped ? ritz.next * std::abs(now[now.size() - 1]) / space_.start_norm()
                                                      : std::max(moved, std::exchange(last_move_, moved));
    factors_ = now;
    if (space_.exhausted()) {
      change_ = 0;
    }
    done_ = space_.exhausted() || change_ <= tolerance;
  }

  SolverSummary summary(double residual, double tolerance) const {
    SolverSummary out;
    out.iterations = space_.steps();
    out.smallest_ritz = smallest_;
    out.largest_ritz = largest_;
    out.relative_residual = filter_.inverts() ? residual : change_;
    const double error = filter_.inverts() ? std::max(residual, change_) : change_;
    if (rounded_) {
      out.message = fmt::format("a Ritz value is {:.1e} at step {}, which is rounding beside the largest, {:.1e}: {}",
                                smallest_, space_.steps(), largest_, rounding_remedy(a_));
    } else if (indefinite_) {
      out.termination = Termination::kIndefinite;
      out.message = fmt::format("a Ritz value is {:.3e} at step {}, damping included", smallest_, space_.steps());
    } else if (error <= tolerance) {
      out.termination = Termination::kConverged;
      out.message = filter_.inverts() ? "converged" : fmt::format("the last change of x was {:.1e} |x|", change_);
    } else {
      out.message = done_ ? fmt::format("rounding leaves a residual of {:.1e} |b|: {}", residual, rounding_remedy(a_))
                          : fmt::format(
                                "iteration limit; the last change was {:.1e}: raise max-iterations or the "
                                "damping",
                                change_);
    }
    return out;
  }

 private:
  Eigen::VectorXd gains(const Eigen::VectorXd& values) const {
    const auto h = at::from_blob(const_cast<double*>(values.data()), {values.size()}, at::kDouble);
    const bool pseudo = filter_.inversion == Inversion::kPseudo;
    const double zero = std::max(1e-12, a_.rounding()) * values.cwiseAbs().maxCoeff();
    const auto f = filter_(h, pseudo ? zero : 0).contiguous();
    return Eigen::Map<const Eigen::VectorXd>(f.const_data_ptr<double>(), values.size());
  }

  Filter filter_;
  const LinearOperator& a_;
  detail::KrylovSpace space_;
  Eigen::VectorXd factors_;
  double change_ = 0, last_move_ = INFINITY, smallest_ = NAN, largest_ = NAN;
  bool indefinite_ = false, rounded_ = false, done_ = false;
};

class LanczosInverse : public Inverse {
 public:
  LanczosInverse(const LanczosOptions& options, const System& system) : Inverse(system), options_(options) {}

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override {
    std::vector<LanczosRow> rows;
    for (std::int64_t k = 0; k < b.size(0); ++k) {
      rows.emplace_back(b[k], system());
    }
    step_all(rows, progress);
    x = at::empty_like(b);
    for (std::size_t k = 0; k < rows.size(); ++k) {
      x[static_cast<std::int64_t>(k)] = rows[k].answer();
    }
    const auto residuals =
        system().filter.inverts() ? relative_residuals(system(), b, x) : std::vector<double>(rows.size(), -1);
    std::vector<SolverSummary> summaries;
    for (std::size_t k = 0; k < rows.size(); ++k) {
      summaries.push_back(rows[k].summary(residuals[k], options_.relative_tolerance));
    }
    return summaries;
  }

 private:
  void step_all(std::vector<LanczosRow>& rows, const Progress& progress) const {
    std::int64_t next_update = 1;  // which costs the cube of the steps
    ProgressScope scope(progress, {"solve", 0, options_.max_iterations, ""});
    for (std::int64_t step = 1; step <= options_.max_iterations; ++step) {
      std::vector<detail::KrylovSpace*> spaces;
      for (auto& row : rows) {
        if (!row.done()) {
          spaces.push_back(row.space());
        }
      }
      if (spaces.empty()) {
        return;
      }
      advance(*system().a, spaces);
      const bool due = step >= next_update || step == options_.max_iterations;
      for (auto& row : rows) {
        if (!row.done() && (due || row.space()->exhausted())) {
          row.update(options_.relative_tolerance);
        }
      }
      next_update = due ? step + std::max<std::int64_t>(1, step / 16) : next_update;
      scope.at(step, fmt::format("{} of {} at work", spaces.size(), rows.size()));
    }
  }

  LanczosOptions options_;
};

class LanczosSolver : public Solver {
 public:
  explicit LanczosSolver(LanczosOptions options) : options_(options) {}
  ProductCount product_count(const SystemTraits& traits) const override {
    return ProductCount::up_to(static_cast<double>(std::min(options_.max_iterations, traits.parameters)));
  }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    return std::make_unique<LanczosInverse>(options_, system);
  }

 private:
  LanczosOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, lanczos, LanczosSolver, LanczosOptions)

}  // namespace whence
