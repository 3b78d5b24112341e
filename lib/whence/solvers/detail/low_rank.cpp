#include "whence/solvers/detail/low_rank.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/rounding.h"
#include "whence/core/tensors.h"
#include "whence/solvers/detail/blocks.h"

namespace whence::detail {
namespace {

at::Tensor to_vector(const Eigen::VectorXd& values) {
  return at::from_blob(const_cast<double*>(values.data()), {values.size()}, at::kDouble).clone();
}

}  // namespace

LowRank nystroem_approximation(const LinearOperator& a, std::int64_t rank, Random random) {
  const auto count = std::min(rank, a.size());
  const auto wide = algebra_options(a.options());
  const ProgressScope scope(fmt::format("a sketch of rank {}", count));
  const auto test = factor_rows(normal_rows(random, count, a.size(), wide), 0).basis;
  const auto sketch = a.apply(test);
  check_finite(sketch, "a product with the curvature");
  const double size = std::sqrt(row_dots(sketch, sketch).sum().item<double>());
  if (!std::isfinite(size)) {
    throw NumericalError("a product with the curvature is too large to be squared");
  }
  const double nudge = a.rounding() / 16 * size * std::sqrt(static_cast<double>(count));
  const SmallMatrix square = block_dots(test, sketch);
  const auto core = eigenpairs(0.5 * (square + square.transpose()));
  LowRank part;
  if (core.values.size() == 0 || !(size > 0)) {
    part.vectors = sketch.narrow(0, 0, 0);
    return part;
  }
  if (core.values[0] < -10 * nudge) {
    part.most_negative = core.values[0];
  }
  // B = D^-1/2 W' (Y + nudge test), so that B' B is the approximation plus the nudge
  const auto above = (core.values.array() > 0).count();
  if (above == 0) {
    part.vectors = sketch.narrow(0, 0, 0);
    return part;
  }
  const SmallMatrix scaled =
      core.vectors.rightCols(above) * (core.values.tail(above).array() + nudge).rsqrt().matrix().asDiagonal();
  const auto root = combine(scaled, sketch.add(test, nudge));
  const auto spectrum = eigenpairs(block_dots(root, root));
  const double least = std::max(10 * nudge, 1e-12 * spectrum.values.maxCoeff());
  const auto kept = (spectrum.values.array() > least).count();
  const SmallMatrix turn = spectrum.vectors.rightCols(kept).rowwise().reverse();
  part.values = (spectrum.values.tail(kept).reverse().array() - nudge).max(0.0);
  const Eigen::ArrayXd lengths = spectrum.values.tail(kept).reverse().array().sqrt();
  part.vectors = combine(turn * lengths.inverse().matrix().asDiagonal(), root);
  return part;
}

LowRankInverse::LowRankInverse(System from, LowRank part, bool complement, double relative_tolerance, std::string name)
    : Inverse(std::move(from)),
      part_(std::move(part)),
      relative_tolerance_(relative_tolerance),
      name_(std::move(name)) {
  const auto values = to_vector(part_.values);
  // an eigenvalue that is rounding is none, where no damping covers it
  const bool covered = system().filter.inversion == Inversion::kDamped && system().filter.damping > 0;
  const double zero =
      covered || values.numel() == 0 ? 0 : std::max(1e-12, system().a->rounding()) * values.abs().max().item<double>();
  if (complement && part_.vectors.size(0) < system().a->size()) {
    outside_ = system().filter(at::zeros({1}, at::kDouble), zero).item<double>();
  }
  auto gains = system().filter(values, zero);
  if (system().filter.inversion == Inversion::kDamped) {  // what rounding made negative is left out
    gains = at::where(values + system().filter.damping > 0, gains, at::zeros_like(gains));
  }
  gains_ = (gains - outside_).unsqueeze(1).to(part_.vectors.options());
}

std::vector<SolverSummary> LowRankInverse::do_apply(const at::Tensor& b, at::Tensor& x, const Progress&) const {
  std::vector<SolverSummary> summaries(static_cast<std::size_t>(b.size(0)));
  const double damping = system().filter.inversion == Inversion::kDamped ? system().filter.damping : 0;
  const double lowest = part_.most_negative < 0   ? part_.most_negative
                        : part_.values.size() > 0 ? part_.values.minCoeff()
                                                  : 0;
  const double largest = part_.values.size() > 0 ? part_.values.maxCoeff() : 0;
  const bool negative =
      system().filter.inversion == Inversion::kDamped && part_.values.size() > 0 && lowest + damping <= 0;
  const bool rounded = negative && part_.most_negative >= 0 &&
                       lowest + damping >= -system().a->rounding() * std::max(largest, std::abs(lowest));
  const bool indefinite = part_.most_negative < 0 || (negative && !rounded);
  const bool inverts = system().filter.inverts();
  x = indefinite ? at::zeros_like(b) : outside_ * b + part_.vectors.t().mm(part_.vectors.mm(b.t()).mul(gains_)).t();
  const auto residuals = inverts && !indefinite ? relative_residuals(system(), b, x) : std::vector<double>{};
  for (std::size_t k = 0; k < summaries.size(); ++k) {
    auto& summary = summaries[k];
    summary.smallest_ritz = lowest + damping;
    summary.largest_ritz = largest + damping;
    summary.relative_residual = indefinite ? 1 : inverts ? residuals[k] : -1;
    if (indefinite) {
      summary.termination = Termination::kIndefinite;
      summary.message = fmt::format("{} met the eigenvalue {:.3e}", name_, lowest);
    } else if (rounded) {
      summary.message = fmt::format("{} met the eigenvalue {:.1e}, which is rounding beside the largest, {:.1e}: {}",
                                    name_, lowest, largest, rounding_remedy(*system().a));
    } else if (inverts && residuals[k] <= relative_tolerance_) {
      summary.termination = Termination::kConverged;
      summary.message = fmt::format("{} leaves a residual of {:.1e} |b|", name_, residuals[k]);
    } else {
      summary.message = inverts
                            ? fmt::format(
                                  "{} leaves a residual of {:.1e} |b|, more than {:.1e}: raise rank or the damping, "
                                  "or use it as cg's preconditioner",
                                  name_, residuals[k], relative_tolerance_)
                            : fmt::format("{}; its error is not measured", name_);
    }
  }
  return summaries;
}

}  // namespace whence::detail
