#include "whence/solvers/solver.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "whence/core/rounding.h"
#include "whence/core/seconds.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

constexpr std::array<std::pair<Inversion, std::string_view>, 5> kInversions{{{Inversion::kDamped, "damped"},
                                                                             {Inversion::kFiltered, "filtered"},
                                                                             {Inversion::kPseudo, "pseudo"},
                                                                             {Inversion::kSegment, "segment"},
                                                                             {Inversion::kMemory, "memory"}}};

class IterativeInverse : public Inverse {
 public:
  IterativeInverse(const IterativeSolver& solver, System system, LinearSystem linear)
      : Inverse(std::move(system)), solver_(solver), linear_(std::move(linear)) {}

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override {
    return solver_.solve(linear_, linear_.target_is_product ? system().a->apply(b) : b, x, progress);
  }

 private:
  const IterativeSolver& solver_;
  LinearSystem linear_;
};

void check_damping(const Filter& filter) {
  if (!(filter.damping >= 0)) {
    throw InvalidArgument(fmt::format("damping = {}, expected >= 0", filter.damping));
  }
}

}  // namespace

std::string_view to_string(Termination termination) {
  switch (termination) {
    case Termination::kConverged:
      return "converged";
    case Termination::kIterationLimit:
      return "iteration-limit";
    case Termination::kIndefinite:
      return "indefinite";
    case Termination::kDiverged:
      return "diverged";
    case Termination::kApproximate:
      return "approximate";
  }
  return "";
}

std::string rounding_remedy(const LinearOperator& a) {
  const auto algebra = c10::typeMetaToScalarType(a.options().dtype());
  return rounding_remedy(a.rounding() > 16 * epsilon(algebra) ? at::kBFloat16 : algebra);  // of narrower passes
}

std::string_view to_string(Inversion inversion) { return kInversions[static_cast<std::size_t>(inversion)].second; }

Inversion parse_inversion(std::string_view word) {
  std::vector<std::string> known;
  for (const auto& [value, name] : kInversions) {
    if (value == Inversion::kSegment || value == Inversion::kMemory) {
      continue;  // these follow from --response
    }
    if (name == word) {
      return value;
    }
    known.emplace_back(name);
  }
  throw InvalidArgument(unknown_name("inversion", word, known));
}

double ProductCount::expected() const { return std::sqrt(low * high); }

ProductCount ProductCount::up_to(double most) {
  constexpr double kFewest = 20;
  return {std::min(kFewest, most), most};
}

std::vector<SolverSummary> Inverse::apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const {
  const auto start = Clock::now();
  const double before = system_.a->products();
  auto summaries = do_apply(b, x, progress);
  const double seconds = seconds_since(start);
  for (auto& summary : summaries) {
    summary.seconds = seconds;
    summary.products = (system_.a->products() - before) / static_cast<double>(b.size(0));
  }
  return summaries;
}

std::vector<SolverSummary> Inverse::approximate_summaries(const at::Tensor& b, const at::Tensor& x,
                                                          const std::string& message, bool measure) const {
  std::vector<SolverSummary> out(static_cast<std::size_t>(b.size(0)));
  const auto residuals =
      measure && system_.filter.inverts() ? relative_residuals(system_, b, x) : std::vector<double>(out.size(), -1.0);
  for (std::size_t k = 0; k < out.size(); ++k) {
    out[k].termination = Termination::kApproximate;
    out[k].relative_residual = residuals[k];
    out[k].message = message;
  }
  return out;
}

std::unique_ptr<Inverse> Solver::prepare(const System& system) const {
  check_damping(system.filter);
  return do_prepare(system);
}

at::Tensor Filter::operator()(const at::Tensor& eigenvalues, double zero) const {
  const auto h = eigenvalues.to(at::kDouble);  // a float32 eigenvalue may be far below the spacing of 1
  const auto inverted = [zero](const at::Tensor& x) { return at::where(x.abs() > zero, 1 / x, at::zeros_like(x)); };
  const auto g = h + damping;
  // What descent leaves of its start is r = (1 - t)^steps with t = time / steps g: exp(steps log1p(-t)), and 1 - r by
  // expm1, which keep the digits of a small t; a step past the minimum, t >= 1, has no logarithm. Steps by t > 2 would
  // have grown without end: a training that ended took none such (Adam's shrink where its preconditioner, as it was at
  // the end, says otherwise: at an input that is always 0 it divides by the square of nothing), and has forgotten its
  // start there.
  const auto count = static_cast<double>(std::max<std::int64_t>(1, steps));
  const auto t = time / count * g;
  const auto overshoots = t >= 1;
  const auto exponent = steps == 0 ? at::neg(t) : count * at::log1p(-at::where(overshoots, at::zeros_like(t), t));
  const auto past = [&] { return at::where(t > 2, at::zeros_like(t), at::pow(1 - t.clamp_max(2), count)); };
  at::Tensor out;
  switch (inversion) {
    case Inversion::kDamped:
      out = inverted(g);
      break;
    case Inversion::kFiltered:
      out = at::where(h.abs() > zero, h / (h.square() + damping * damping), at::zeros_like(h));
      break;
    case Inversion::kPseudo:
      out = inverted(h);
      break;
    case Inversion::kSegment: {
      auto lost = at::neg(at::expm1(exponent));
      lost = steps == 0 ? lost : at::where(overshoots, 1 - past(), lost);
      const auto none = g.abs() * time < 1e-300;  // the limit at 0 is time
      out = at::where(none, at::full_like(g, time), lost / at::where(none, at::ones_like(g), g));
      break;
    }
    case Inversion::kMemory:
      out = steps == 0 ? at::exp(exponent) : at::where(overshoots, past(), at::exp(exponent));
      break;
  }
  return out.to(eigenvalues.scalar_type());
}

SpectralFunction of_block(const Filter& filter) {
  return [filter](const at::Tensor& h) { return filter(h, h.numel() > 0 ? 1e-12 * h.abs().max().item<double>() : 0); };
}

LinearSystem linear_system(const System& system) {
  const auto& filter = system.filter;
  check_damping(filter);
  switch (filter.inversion) {
    case Inversion::kDamped:
      return {.base = system.a,
              .shift = filter.damping,
              .a = damped(system.a, filter.damping),
              .target_is_product = false,
              .may_be_sketched = system.semidefinite};
    case Inversion::kFiltered:
    case Inversion::kPseudo: {
      const double shift = filter.inversion == Inversion::kPseudo ? 0 : filter.damping * filter.damping;
      return {.base = squared(system.a, 0), .shift = shift, .a = squared(system.a, shift)};
    }
    default:
      throw InvalidArgument(
          "this solver inverts, and response segment asks for another function of the curvature: use --solver auto, "
          "direct, lanczos or ekfac");
  }
}

std::vector<double> relative_residuals(const System& system, const at::Tensor& b, const at::Tensor& x) {
  const auto linear = linear_system(system);
  const auto target = linear.target_is_product ? system.a->apply(b) : b;
  const auto sizes = row_norms(target - linear.a->apply(x)), norms = row_norms(target);
  std::vector<double> out;
  for (std::int64_t k = 0; k < b.size(0); ++k) {
    const double norm = norms[k].item<double>();
    out.push_back(norm > 0 ? sizes[k].item<double>() / norm : 0);
  }
  return out;
}

std::unique_ptr<Inverse> IterativeSolver::do_prepare(const System& system) const {
  auto linear = linear_system(system);
  linear.precondition = preconditioner(system);
  return std::make_unique<IterativeInverse>(*this, system, std::move(linear));
}

}  // namespace whence
