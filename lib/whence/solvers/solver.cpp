#include "whence/solvers/solver.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <utility>

namespace whence {
namespace {

constexpr std::array<std::pair<Inversion, std::string_view>, 3> kInversions{
    {{Inversion::kDamped, "damped"}, {Inversion::kFiltered, "filtered"}, {Inversion::kPseudo, "pseudo"}}};

class IterativeInverse : public Inverse {
 public:
  IterativeInverse(const IterativeSolver& solver, OperatorPtr a, const Filter& filter)
      : solver_(solver), a_(std::move(a)), filter_(filter) {
    const double damping = filter.inversion == Inversion::kPseudo ? 0 : filter.damping;
    system_ = filter.inversion == Inversion::kDamped ? damped(a_, damping) : squared(a_, damping * damping);
  }

  std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override {
    const auto start = std::chrono::steady_clock::now();
    x = at::zeros_like(b);
    const auto right = filter_.inversion == Inversion::kDamped ? b : a_->apply(b);
    auto summaries = solver_.solve(*system_, right, x, progress);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (auto& summary : summaries) {
      summary.seconds = seconds;
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
  }
  return "";
}

std::string_view to_string(Inversion inversion) { return kInversions[static_cast<std::size_t>(inversion)].second; }

Inversion parse_inversion(std::string_view word) {
  std::vector<std::string> known;
  for (const auto& [value, name] : kInversions) {
    if (name == word) {
      return value;
    }
    known.emplace_back(name);
  }
  throw InvalidArgument(unknown_name("inversion", word, known));
}

std::unique_ptr<Inverse> IterativeSolver::prepare(OperatorPtr a, const Filter& filter) const {
  if (!(filter.damping >= 0)) {
    throw InvalidArgument(fmt::format("damping = {}, expected >= 0", filter.damping));
  }
  return std::make_unique<IterativeInverse>(*this, std::move(a), filter);
}

}  // namespace whence
