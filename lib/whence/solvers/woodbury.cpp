// The damped inverse of J' J + D in the dual, by M. Woodbury, "Inverting modified matrices", 1950:
//   (J' J + D)^-1 = D^-1 - D^-1 J' (I + J D^-1 J')^-1 J D^-1.
// Exact for Gauss-Newton and Fisher matrices, at the cost of a matrix over rows (examples times outputs) in place of
// one over parameters.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/core/tensors.h"
#include "whence/curvature/gram_operator.h"
#include "whence/models/tape.h"
#include "whence/solvers/detail/dense.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct WoodburyOptions {
  double max_bytes = 4e9;
  double relative_tolerance = detail::kFactorisedTolerance;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("max-bytes", self.max_bytes, kPositive, "refuse when the matrix over rows and its factor would take more");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "converged means |b - A x| <= this * |b|; the work does not depend on it");
  }
};

/// What the matrix over the rows takes, in products with the curvature: of a layer that sees one place of an example it
/// is made of two small ones, of a convolution or a text's layer of the rows themselves. Counted on one example.
double dual_products(const CurvaturePoint& at, std::int64_t rows) {
  constexpr double kOfAProduct = 6;  // a gradient and a derivative along a direction are three passes each
  const auto theta = detach(at.theta), parent = detach(at.parent);
  Tape tape;
  at.objective.output(theta, parent, at.objective.data().batch(0, 1), &tape);
  const auto merged = at.objective.merge(theta, parent);
  double dual = 0, product = 0;
  for (const auto& entry : tape.entries) {
    if (entry.multiplies()) {
      const auto& weight = merged.at(entry.weight);
      const auto outputs = entry.outputs(weight) * entry.groups, places = entry.output.numel() / outputs;
      const auto numbers = static_cast<double>(weight.numel());
      product += kOfAProduct * numbers * static_cast<double>(places);
      if (at.objective.trained().contains(entry.weight)) {
        const auto wide = static_cast<double>(outputs);
        dual += places == 1 ? numbers / wide + wide : numbers;
      }
    }
  }
  const auto n = static_cast<double>(rows);
  return product > 0 ? n * n / 2 * dual / (product * static_cast<double>(at.objective.data().size())) : 0;
}

class WoodburyInverse : public Inverse {
 public:
  WoodburyInverse(const System& system, std::shared_ptr<const GramOperator> a, double relative_tolerance)
      : Inverse(system), a_(std::move(a)), relative_tolerance_(relative_tolerance) {
    const auto& penalty = a_->diagonal();
    const auto d = penalty + system.filter.damping;
    if (!(d.min().item<double>() > 0)) {
      throw InvalidArgument(
          "woodbury: the penalty and the damping leave a parameter without any; expected damping or weight decay > 0: "
          "use --damping auto");
    }
    scale_ = 1 / d;
    const ProgressScope scope("the matrix over rows");
    auto dual = a_->gram(scale_.to(a_->options())).to(at::kDouble);
    dual.diagonal().add_(1);
    const auto [factor, info] = at::linalg_cholesky_ex(dual);
    if (info.item<int>() != 0) {
      throw NumericalError(fmt::format(
          "woodbury: the matrix over {} rows, up to {:.1e} beside the damping's 1, is not positive definite for "
          "rounding: {}",
          a_->rows(), dual.diagonal().max().item<double>(), rounding_remedy(*a_)));
    }
    factor_ = factor;
  }

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    x = solve(b);
    auto left = a_->apply(x).add_(x, system().filter.damping).neg_().add_(b);
    x.add_(solve(left));  // a step of refinement takes float32's rounding out
    left = at::Tensor();
    auto summaries = approximate_summaries(b, x, fmt::format("Cholesky of {} rows in the dual", a_->rows()), true);
    for (auto& summary : summaries) {
      const bool converged = summary.relative_residual <= relative_tolerance_;
      summary.termination = converged ? Termination::kConverged : Termination::kIterationLimit;
      if (!converged) {
        summary.message = fmt::format("{} leaves a residual of {:.1e} |b|, for rounding: {}", summary.message,
                                      summary.relative_residual, rounding_remedy(*a_));
      }
    }
    return summaries;
  }

 private:
  at::Tensor solve(const at::Tensor& b) const {
    auto x = (b * scale_).to(b.options());
    const auto dual_b = a_->times(x.to(a_->options())).to(at::kDouble);
    const auto dual_x = at::cholesky_solve(dual_b.t(), factor_).t().to(a_->options());
    return x.sub_(a_->transposed_times(dual_x.contiguous()).mul_(scale_));
  }

  std::shared_ptr<const GramOperator> a_;
  double relative_tolerance_;
  at::Tensor scale_, factor_;
};

class WoodburySolver : public Solver {
 public:
  explicit WoodburySolver(WoodburyOptions options) : options_(options) {}
  SolverNeeds needs() const override { return {.rows = true}; }
  /// Two solves, each a product with J and one with J', the refinement between them and the residual; the matrix once.
  ProductCount product_count(const SystemTraits& traits) const override {
    return {4, 4, true, traits.point ? dual_products(*traits.point, traits.rows()) : 0};
  }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    auto a = std::dynamic_pointer_cast<const GramOperator>(system.a);
    if (!a) {
      throw InvalidArgument(
          "woodbury: expected a curvature that is J' J, by rows: gauss-newton (up to 64 outputs), fisher or "
          "empirical-fisher: use --curvature gauss-newton, or --solver auto");
    }
    if (system.filter.inversion != Inversion::kDamped) {
      throw InvalidArgument(
          fmt::format("woodbury: inversion = {}, expected damped: use --inversion damped or --solver auto",
                      to_string(system.filter.inversion)));
    }
    const auto rows = static_cast<double>(a->rows());
    if (16 * rows * rows > options_.max_bytes) {
      throw InvalidArgument(fmt::format(
          "woodbury: {} rows (examples times outputs) need {:.1f} GB for the matrix over them and its factor, expected "
          "at most {:.1f} GB (option max-bytes); use cg",
          a->rows(), 16 * rows * rows / 1e9, options_.max_bytes / 1e9));
    }
    return std::make_unique<WoodburyInverse>(system, std::move(a), options_.relative_tolerance);
  }

 private:
  WoodburyOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, woodbury, WoodburySolver, WoodburyOptions)

}  // namespace whence
