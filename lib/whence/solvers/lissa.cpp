// Truncated Neumann series x <- x + (b - A x) / scale. N. Agarwal, B. Bullins and E. Hazan, "Second-Order Stochastic
// Optimization for Machine Learning in Linear Time" (LiSSA), JMLR 18 (2017); conditions in formulas.md section 8.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/tensors.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct LissaOptions {
  std::int64_t depth = 5000;
  double scale = 0;
  std::int64_t batch_size = 0;
  std::int64_t repeats = 1;
  double relative_tolerance = 1e-6;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("depth", self.depth, kAtLeastOne,
          "terms of the series; the error falls as (1 - smallest eigenvalue / scale)^depth");
    field("scale", self.scale, kAtLeastZero,
          "divides A; the series diverges unless it exceeds half the largest eigenvalue; 0: 1.1 times the largest, by "
          "20 power steps");
    field("batch-size", self.batch_size, kAtLeastZero, "examples drawn for each term; 0: all, and the series is exact");
    field("repeats", self.repeats, kAtLeastOne, "independent series whose mean is taken (with batch-size)");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "stop when |b - A x| <= this * |b|; without batches");
    field("seed", self.seed, kAtLeastZero, "of the batches and the power steps");
  }
};

class LissaSolver : public IterativeSolver {
 public:
  explicit LissaSolver(LissaOptions options) : options_(options) {}

  std::vector<SolverSummary> solve(const LinearOperator& a, const at::Tensor& b, at::Tensor& x,
                                   const Progress& progress) const override {
    const auto count = b.size(0);
    const auto random = Random(static_cast<std::uint64_t>(options_.seed)).stream("lissa");
    const double scale = options_.scale > 0 ? options_.scale : automatic_scale(a, random);
    const auto norms = row_norms(b);
    const auto begin = x.clone();
    auto mean = at::zeros_like(x);
    std::vector<SolverSummary> summaries(static_cast<std::size_t>(count));
    const std::int64_t repeats = options_.batch_size > 0 ? options_.repeats : 1;
    for (std::int64_t repeat = 0; repeat < repeats; ++repeat) {
      auto draws = random.stream(fmt::format("repeat {}", repeat));
      x = begin.clone();
      for (std::int64_t term = 1; term <= options_.depth; ++term) {
        const auto image = options_.batch_size > 0 ? a.apply_sampled(x, options_.batch_size, draws) : a.apply(x);
        const auto residual = b - image;
        const auto sizes = row_norms(residual);
        if (hopeless(sizes, norms)) {
          return diverged(a, sizes, norms, scale, term, random, x);
        }
        if (options_.batch_size == 0 && met(sizes, norms)) {
          break;  // this x is good as it is; the true residual below says so
        }
        x.add_(residual, 1 / scale);
        for (auto& summary : summaries) {
          summary.iterations = repeat * options_.depth + term;
        }
        report(progress,
               {"solve", repeat * options_.depth + term, repeats * options_.depth,
                fmt::format("largest residual {:.1e}", (sizes / norms.clamp_min(1e-300)).max().item<double>())});
      }
      mean.add_(x, 1.0 / static_cast<double>(repeats));
    }
    x = mean;
    conclude(a, b, x, norms, summaries, scale);
    return summaries;
  }

 private:
  static double automatic_scale(const LinearOperator& a, const Random& random) {
    const double largest = largest_eigenvalue(a, 20, random.stream("power steps"));
    return largest > 0 ? 1.1 * largest : 1;
  }
  bool met(const at::Tensor& sizes, const at::Tensor& norms) const {
    return (sizes <= options_.relative_tolerance * norms).all().item<bool>();
  }
  /// Ten times its start, or not a number: the series has left.
  static bool hopeless(const at::Tensor& sizes, const at::Tensor& norms) {
    return !(sizes <= 10 * norms).all().item<bool>();
  }

  std::vector<SolverSummary> diverged(const LinearOperator& a, const at::Tensor& sizes, const at::Tensor& norms,
                                      double scale, std::int64_t term, const Random& random, at::Tensor& x) const {
    const double largest = largest_eigenvalue(a, 20, random.stream("power steps"));
    std::vector<SolverSummary> summaries(static_cast<std::size_t>(norms.size(0)));
    for (std::size_t k = 0; k < summaries.size(); ++k) {
      auto& summary = summaries[k];
      const auto row = static_cast<std::int64_t>(k);
      summary.termination = Termination::kDiverged;
      summary.iterations = term;
      summary.relative_residual = sizes[row].item<double>() / norms[row].item<double>();
      summary.message = fmt::format(
          "the residual grew to {:.1e} times its start in {} terms with scale {:.3g}; the largest eigenvalue is about "
          "{:.3g}: {}",
          summary.relative_residual, term, scale, largest,
          options_.batch_size > 0 && scale > largest ? "raise batch-size"
          : largest < 0                              ? "the operator is indefinite"
          : scale > largest                          ? "raise the damping"
                                                     : "raise scale above it, or leave it at 0");
    }
    x.zero_();
    return summaries;
  }

  void conclude(const LinearOperator& a, const at::Tensor& b, const at::Tensor& x, const at::Tensor& norms,
                std::vector<SolverSummary>& summaries, double scale) const {
    const auto sizes = row_norms(b - a.apply(x));
    for (std::size_t k = 0; k < summaries.size(); ++k) {
      auto& summary = summaries[k];
      const auto row = static_cast<std::int64_t>(k);
      const double size = sizes[row].item<double>(), norm = norms[row].item<double>();
      summary.relative_residual = norm > 0 ? size / norm : 0;
      const bool converged = size <= options_.relative_tolerance * norm;
      summary.termination = converged ? Termination::kConverged : Termination::kIterationLimit;
      summary.message = converged
                            ? fmt::format("converged with scale {:.3g}", scale)
                            : fmt::format("all terms summed with scale {:.3g}: raise depth or the damping", scale);
    }
  }

  LissaOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, lissa, LissaSolver, LissaOptions)

}  // namespace whence
