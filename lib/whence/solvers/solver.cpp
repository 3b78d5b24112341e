#include "whence/solvers/solver.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <utility>

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
  IterativeInverse(const IterativeSolver& solver, const System& system)
      : solver_(solver), a_(system.a), filter_(system.filter) {
    const double damping = filter_.inversion == Inversion::kPseudo ? 0 : filter_.damping;
    system_ = filter_.inversion == Inversion::kDamped ? damped(a_, damping) : squared(a_, damping * damping);
  }

  std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override {
    const auto start = std::chrono::steady_clock::now();
    const double before = a_->products();
    x = at::zeros_like(b);
    const auto right = filter_.inversion == Inversion::kDamped ? b : a_->apply(b);
    auto summaries = solver_.solve(*system_, right, x, progress);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (auto& summary : summaries) {
      summary.seconds = seconds;
      summary.products = (a_->products() - before) / static_cast<double>(b.size(0));
    }
    return summaries;
  }

 private:
  const IterativeSolver& solver_;
  OperatorPtr a_, system_;
  Filter filter_;
};

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

void check_damping(const Filter& filter) {
  if (!(filter.damping >= 0)) {
    throw InvalidArgument(fmt::format("damping = {}, expected >= 0", filter.damping));
  }
}

std::vector<SolverSummary> approximate_summaries(const System& system, const at::Tensor& b, const at::Tensor& x,
                                                 std::chrono::steady_clock::time_point start,
                                                 const std::string& message) {
  const auto& [a, filter, point] = system;
  std::vector<SolverSummary> out(static_cast<std::size_t>(b.size(0)));
  const bool inverse = filter.inversion != Inversion::kSegment && filter.inversion != Inversion::kMemory;
  at::Tensor sizes, norms;
  const double before = a->products();
  if (inverse) {
    const bool plain = filter.inversion == Inversion::kDamped;
    const auto target = plain ? b : a->apply(b);
    const double shift = filter.inversion == Inversion::kPseudo ? 0 : filter.damping;
    const auto image = plain ? damped(a, shift)->apply(x) : squared(a, shift * shift)->apply(x);
    sizes = row_norms(target - image);
    norms = row_norms(target);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (std::size_t k = 0; k < out.size(); ++k) {
    const auto row = static_cast<std::int64_t>(k);
    out[k].termination = Termination::kApproximate;
    if (inverse) {
      const double norm = norms[row].item<double>();
      out[k].relative_residual = norm > 0 ? sizes[row].item<double>() / norm : 0;
    }
    out[k].seconds = seconds;
    out[k].products = (a->products() - before) / static_cast<double>(b.size(0));
    out[k].message = message;
  }
  return out;
}

at::Tensor Filter::operator()(const at::Tensor& h, double zero) const {
  const auto inverted = [zero](const at::Tensor& x) { return at::where(x.abs() > zero, 1 / x, at::zeros_like(x)); };
  const auto g = h + damping;
  const auto left = [&] {  // of the start, after descent
    if (steps == 0) {
      return at::exp(-time * g);
    }
    return at::pow(1 - time / static_cast<double>(steps) * g, steps);
  };
  switch (inversion) {
    case Inversion::kDamped:
      return inverted(g);
    case Inversion::kFiltered:
      return at::where(h.abs() > zero, h / (h.square() + damping * damping), at::zeros_like(h));
    case Inversion::kPseudo:
      return inverted(h);
    case Inversion::kSegment: {
      const auto small = (g * time).abs() < 1e-8;  // the limit at 0 is time; the series' next term is below rounding
      const auto fraction = steps == 0 ? at::neg(at::expm1(-time * g)) : 1 - left();
      return at::where(small, at::full_like(g, time), fraction / at::where(small, at::ones_like(g), g));
    }
    case Inversion::kMemory:
      return left();
  }
  return {};
}

std::unique_ptr<Inverse> IterativeSolver::prepare(const System& system) const {
  check_damping(system.filter);
  if (system.filter.inversion == Inversion::kSegment || system.filter.inversion == Inversion::kMemory) {
    throw InvalidArgument(
        "this solver inverts, and response segment asks for another function of the curvature: use solver direct, "
        "lanczos or ekfac");
  }
  return std::make_unique<IterativeInverse>(*this, system);
}

}  // namespace whence
