// Truncated Neumann series x <- x + M (b - A x) / scale. N. Agarwal, B. Bullins and E. Hazan, "Second-Order Stochastic
// Optimization for Machine Learning in Linear Time" (LiSSA), JMLR 18 (2017); scale, batch and depth from measured
// eigenvalues: Y. Klochkov and Y. Liu, "Revisiting inverse Hessian vector products for calculating influence
// functions", 2024; with a preconditioner M it is A. Wang et al., "Better Training Data Attribution via Better Inverse
// Hessian-Vector Products" (ASTRA), 2025.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/chunks.h"
#include "whence/core/tensors.h"
#include "whence/solvers/detail/krylov.h"
#include "whence/solvers/detail/preconditioner.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct LissaOptions {
  std::int64_t depth = 0;
  std::int64_t max_depth = 20000;
  double scale = 0;
  bool sampled = false;
  std::int64_t batch_size = 0;
  bool average = true;
  std::int64_t repeats = 1;
  double relative_tolerance = 1e-6;
  detail::PreconditionerOptions preconditioning;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("depth", self.depth, kAtLeastZero,
          "terms of the series; the error falls as (1 - smallest eigenvalue / scale)^depth; 0: until the tolerance is "
          "met, with batches as many as the measured eigenvalues ask for");
    field("max-depth", self.max_depth, kAtLeastOne, "most terms where depth is 0");
    field("scale", self.scale, kAtLeastZero,
          "divides A; the series diverges unless it exceeds half the largest eigenvalue; 0: 1.05 times the largest, by "
          "20 Lanczos steps");
    field("sampled", self.sampled, kAny, "draw examples for each term");
    field("batch-size", self.batch_size, kAtLeastZero,
          "how many (and sampled); 0: 2 trace / largest eigenvalue where sampled, else all, and the series is exact");
    field("average", self.average, kAny, "where sampled, the mean of the last half of the iterates");
    field("repeats", self.repeats, kAtLeastOne, "independent series whose mean is taken (where sampled)");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "stop when |b - A x| <= this * |b|; where sampled, what depth 0 aims at");
    detail::PreconditionerOptions::fields(self.preconditioning, field);
    field("seed", self.seed, kAtLeastZero, "of the batches, the measured eigenvalues and the trace");
  }
};

/// How the series is summed: the options, and what was measured where they leave it open.
struct Plan {
  double scale = 1;
  std::int64_t depth = 0;                // most terms
  std::int64_t batch_size = 0;           // 0: all examples
  double smallest = NAN, largest = NAN;  // Ritz values of M A
};

/// One block solve.
class NeumannSeries {
 public:
  NeumannSeries(const LissaOptions& options, const LinearSystem& system, const at::Tensor& b, const Progress& progress)
      : options_(options),
        system_(system),
        b_(b),
        random_(Random(static_cast<std::uint64_t>(options.seed)).stream("lissa")),
        b_norms_(row_norms(b)),
        summaries_(static_cast<std::size_t>(b.size(0))),
        scope_(progress, {"solve", 0, 0, ""}) {
    make_plan();
    scope_.expect((plan_.batch_size > 0 ? options_.repeats : 1) * plan_.depth);
  }

  std::vector<SolverSummary> run(at::Tensor& x) {
    const auto repeats = plan_.batch_size > 0 ? options_.repeats : 1;
    x = at::zeros_like(b_);
    for (std::int64_t repeat = 0; repeat < repeats; ++repeat) {
      const auto sum = sum_terms(repeat);
      if (!sum.defined()) {
        x.zero_();
        return std::move(summaries_);
      }
      x.add_(sum, 1.0 / static_cast<double>(repeats));
    }
    finish(x);
    return std::move(summaries_);
  }

 private:
  at::Tensor precondition(const at::Tensor& x) const { return system_.precondition ? system_.precondition(x) : x; }

  void make_plan() {
    plan_.batch_size = options_.batch_size;
    plan_.scale = options_.scale;
    plan_.depth = options_.depth > 0 ? options_.depth : options_.max_depth;
    const bool sampled = options_.sampled || options_.batch_size > 0;
    if (plan_.scale == 0 || (sampled && (options_.batch_size == 0 || options_.depth == 0))) {
      measure_spectrum();
    }
    if (plan_.scale == 0) {
      plan_.scale = plan_.largest > 0 ? 1.05 * plan_.largest : 1;
    }
    if (sampled && plan_.batch_size == 0) {
      plan_.batch_size =
          plan_.largest > 0 ? std::max<std::int64_t>(1, std::llround(std::ceil(2 * trace() / plan_.largest))) : 1;
    }
    if (sampled && options_.depth == 0 && plan_.smallest > 0) {
      const double wanted = -std::log(options_.relative_tolerance) * plan_.scale / plan_.smallest;
      plan_.depth = wanted < static_cast<double>(plan_.depth) ? std::llround(std::ceil(wanted)) : plan_.depth;
    }
  }

  /// The ends of the spectrum of M A.
  void measure_spectrum() {
    const ProgressScope scope("the ends of the spectrum", 20);
    auto draws = random_.stream("eigenvalues");
    detail::KrylovSpace space(draws.normal({system_.a->size()}).to(b_.options()), system_.precondition);
    for (int step = 0; step < 20 && !space.exhausted(); ++step) {
      detail::advance(*system_.a, {&space});
    }
    const auto ritz = space.ritz().values;
    plan_.smallest = ritz.minCoeff();
    plan_.largest = ritz.maxCoeff();
  }

  /// Of M base, by 30 random sign vectors (Hutchinson 1990).
  double trace() const {
    constexpr int kProbes = 30;
    auto draws = random_.stream("trace");
    double sum = 0;
    in_chunks(kProbes, 8 * system_.a->size(), [&](std::int64_t, std::int64_t count) {  // drawn in float64
      const auto signs = draws.uniform({count, system_.a->size()}, -1, 1).sign_().to(b_.options());
      sum += row_dots(precondition(signs), system_.base->apply(signs)).sum().item<double>();
    });
    return sum / kProbes;
  }

  /// The sum of the series; undefined where it diverges, and the summaries then say so.
  at::Tensor sum_terms(std::int64_t repeat) {
    auto draws = random_.stream(fmt::format("repeat {}", repeat));
    auto x = precondition(b_) / (system_.precondition ? 1 : plan_.scale);  // the first step of ASTRA is M b itself
    note_term(repeat, 1, b_norms_);
    auto total = at::zeros_like(x);  // of the iterates that are averaged
    std::int64_t averaged = 0;
    for (std::int64_t term = 2; term <= plan_.depth; ++term) {
      const auto product =
          plan_.batch_size > 0 ? system_.a->apply_sampled(x, plan_.batch_size, draws) : system_.a->apply(x);
      const auto residuals = b_ - product;
      const auto norms = row_norms(residuals);
      if (diverges(norms)) {
        finish_diverged(norms, term);
        return {};
      }
      if (plan_.batch_size == 0 && (norms <= options_.relative_tolerance * b_norms_).all().item<bool>()) {
        break;  // finish() computes it anew
      }
      if (plan_.batch_size == 0 && stalls(norms, term)) {
        break;
      }
      x.add_(precondition(residuals), 1 / plan_.scale);
      if (plan_.batch_size > 0 && options_.average && 2 * term > plan_.depth) {
        total.add_(x);
        ++averaged;
      }
      note_term(repeat, term, norms);
    }
    return averaged > 0 ? total / averaged : x;
  }

  /// Whether more terms will not do: no row has lost a thousandth of its residual in 500, for rounding or slowness.
  bool stalls(const at::Tensor& norms, std::int64_t term) {
    constexpr std::int64_t kPatience = 500;
    if (!least_norms_.defined() || (norms < 0.999 * least_norms_).any().item<bool>()) {
      least_norms_ = norms.clone();
      last_fall_ = term;
    }
    stalled_ = term - last_fall_ >= kPatience;
    if (stalled_) {
      log_rate_ = std::log((norms / least_norms_).max().item<double>()) / static_cast<double>(kPatience);
    }
    return stalled_;
  }

  void note_term(std::int64_t repeat, std::int64_t term, const at::Tensor& norms) {
    const auto done = repeat * plan_.depth + term;
    for (auto& summary : summaries_) {
      summary.iterations = done;
    }
    const double largest = (norms / b_norms_.clamp_min(1e-300)).max().item<double>();
    scope_.at(done, fmt::format("largest residual {:.1e}", largest));
  }

  /// Whether a residual is ten times its start, or not a number. A preconditioned one may rise before it falls.
  bool diverges(const at::Tensor& norms) const {
    return !(norms <= (system_.precondition ? 1e6 : 10) * b_norms_).all().item<bool>();
  }

  void finish_diverged(const at::Tensor& norms, std::int64_t term) {
    if (std::isnan(plan_.largest)) {
      measure_spectrum();
    }
    const char* remedy = plan_.smallest < -system_.a->rounding() * std::abs(plan_.largest)
                             ? "the operator is indefinite"
                         : plan_.scale <= plan_.largest ? "raise scale above it, or leave it at 0"
                         : plan_.batch_size > 0         ? "raise batch-size, or set it to 0 with sampled=true"
                                                        : "raise the damping";
    for (std::size_t k = 0; k < summaries_.size(); ++k) {
      const auto row = static_cast<std::int64_t>(k);
      auto& summary = summaries_[k];
      summary.termination = Termination::kDiverged;
      summary.iterations = term;
      summary.relative_residual = norms[row].item<double>() / b_norms_[row].item<double>();
      summary.message = fmt::format(
          "the residual grew to {:.1e} times its start in {} terms with scale {:.3g}; the eigenvalues reach from about "
          "{:.3g} to {:.3g}: {}",
          summary.relative_residual, term, plan_.scale, plan_.smallest, plan_.largest, remedy);
      note_ritz(summary);
    }
  }

  void note_ritz(SolverSummary& summary) const {
    if (!system_.precondition) {
      summary.smallest_ritz = plan_.smallest;
      summary.largest_ritz = plan_.largest;
    }
  }

  void finish(const at::Tensor& x) {
    const auto norms = row_norms(b_ - system_.a->apply(x));
    const double norm_of_a = stalled_ ? std::abs(largest_eigenvalue(*system_.a, 10, random_.stream("rounding"))) : 0;
    const auto floors = row_norms(x) * (system_.a->rounding() * norm_of_a);
    for (std::size_t k = 0; k < summaries_.size(); ++k) {
      const auto row = static_cast<std::int64_t>(k);
      const double norm = norms[row].item<double>(), b_norm = b_norms_[row].item<double>();
      auto& summary = summaries_[k];
      summary.relative_residual = b_norm > 0 ? norm / b_norm : 0;
      const bool converged = norm <= options_.relative_tolerance * b_norm;
      summary.termination = converged ? Termination::kConverged : Termination::kIterationLimit;
      summary.message = converged ? fmt::format("converged with scale {:.3g}", plan_.scale)
                                  : shortfall_text(summary, norm <= floors[row].item<double>());
      note_ritz(summary);
    }
  }

  /// Why the tolerance was not met, and what would help.
  std::string shortfall_text(const SolverSummary& summary, bool rounding) const {
    if (plan_.batch_size > 0) {
      return fmt::format(
          "{} terms of {} examples with scale {:.3g} leave a residual of {:.1e} |b|, the batches' noise included: "
          "raise "
          "batch-size, depth or repeats",
          plan_.depth, plan_.batch_size, plan_.scale, summary.relative_residual);
    }
    if (stalled_ && rounding) {
      return fmt::format("the residual no longer falls below {:.1e} |b|: {}", summary.relative_residual,
                         rounding_remedy(*system_.a));
    }
    const auto remedy =
        fmt::format("use {}cg, or raise the damping", system_.precondition ? "" : "preconditioner=ekfac or ");
    if (stalled_) {
      const double left = std::log(options_.relative_tolerance / summary.relative_residual) / log_rate_;
      return fmt::format(
          "the residual falls too slowly: {} terms with scale {:.3g} leave {:.1e} |b|; at the last pace {:.2g} would "
          "be "
          "needed: {}",
          summary.iterations, plan_.scale, summary.relative_residual,
          log_rate_ < 0 ? static_cast<double>(summary.iterations) + left : INFINITY, remedy);
    }
    const double rate = std::log(summary.relative_residual) / static_cast<double>(plan_.depth);
    const double wanted = std::log(options_.relative_tolerance) / rate;
    return fmt::format(
        "{} = {} terms with scale {:.3g} leave a residual of {:.1e} |b|; at this pace {:.2g} would be needed: {}, or "
        "raise it",
        options_.depth > 0 ? "depth" : "max-depth", plan_.depth, plan_.scale, summary.relative_residual,
        rate < 0 ? wanted : INFINITY, remedy);
  }

  const LissaOptions& options_;
  const LinearSystem& system_;
  const at::Tensor& b_;
  Random random_;
  at::Tensor b_norms_;
  std::vector<SolverSummary> summaries_;
  ProgressScope scope_;
  Plan plan_;
  at::Tensor least_norms_;  // of the residuals when one fell last
  std::int64_t last_fall_ = 0;
  bool stalled_ = false;
  double log_rate_ = 0;  // then: what a term adds to the logarithm of the slowest residual
};

class LissaSolver : public detail::PreconditionedSolver<LissaOptions, NeumannSeries> {
 public:
  using PreconditionedSolver::PreconditionedSolver;
  ProductCount product_count(const SystemTraits&) const override {
    const auto terms = options().depth > 0 ? options().depth : options().max_depth;
    return ProductCount::up_to(static_cast<double>(terms * options().repeats));
  }
};

}  // namespace

WHENCE_METHOD(Solver, lissa, LissaSolver, LissaOptions)

}  // namespace whence
