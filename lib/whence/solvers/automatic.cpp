// Picks a solver by what the operator is and how large: the cheapest exact one, then preconditioned conjugate
// gradients.
#include "whence/solvers/automatic.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/curvature/gram_operator.h"
#include "whence/curvature/spectral_operator.h"

namespace whence {
namespace {

struct AutoOptions {
  double relative_tolerance = 1e-6;
  std::int64_t max_iterations = 1000;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("relative-tolerance", self.relative_tolerance, kUnitInterval, "of an iterative solver that is picked");
    field("max-iterations", self.max_iterations, kAtLeastOne, "of an iterative solver that is picked");
  }
};

/// A dense matrix of this size is formed and factored in less time than a few queries take to solve.
constexpr std::int64_t kFewParameters = 400;
/// Likewise a dual matrix, which needs no products.
constexpr std::int64_t kFewRows = 4000;
/// Eigenvectors of a matrix this large take a minute.
constexpr std::int64_t kMostEigenvectors = 2000;

struct Choice {
  std::string spec, reason;
};

class AutoInverse : public Inverse {
 public:
  AutoInverse(std::unique_ptr<Solver> solver, std::unique_ptr<Inverse> inverse, Choice choice)
      : solver_(std::move(solver)), inverse_(std::move(inverse)), choice_(std::move(choice)) {}
  MatrixRoot root() const override { return inverse_->root(); }
  std::shared_ptr<const SpectralOperator> factors() const override { return inverse_->factors(); }
  std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override {
    auto summaries = inverse_->apply(b, x, progress);
    for (auto& summary : summaries) {
      summary.message = fmt::format("{}; auto picked {}: {}", summary.message, choice_.spec, choice_.reason);
    }
    return summaries;
  }
  const std::string& picked() const { return choice_.spec; }

 private:
  std::unique_ptr<Solver> solver_;
  std::unique_ptr<Inverse> inverse_;
  Choice choice_;
};

class AutoSolver : public Solver {
 public:
  explicit AutoSolver(AutoOptions options) : options_(options) {}

  std::unique_ptr<Inverse> prepare(const System& system) const override {
    auto choice = choose(system);
    auto solver = create<Solver>(choice.spec);
    auto inverse = solver->prepare(system);
    return std::make_unique<AutoInverse>(std::move(solver), std::move(inverse), std::move(choice));
  }

 private:
  Choice choose(const System& system) const {
    const auto size = system.a->size();
    const auto inversion = system.filter.inversion;
    if (dynamic_cast<const SpectralOperator*>(system.a.get()) != nullptr) {
      return {"ekfac", "the curvature comes with its eigenvectors"};
    }
    const auto* gram = dynamic_cast<const GramOperator*>(system.a.get());
    const bool has_dual = gram != nullptr && gram->diagonal().min().item<double>() + system.filter.damping > 0;
    const auto picked = picked_by_size(size, has_dual ? gram->rows() : 0, inversion);
    if (picked == "woodbury") {
      return {"woodbury", fmt::format("{} rows are fewer than {} parameters", gram->rows(), size)};
    }
    if (picked == "lanczos") {
      return {"lanczos", fmt::format("{} parameters are too many for their eigenvectors", size)};
    }
    if (picked == "direct") {
      return {"direct", fmt::format("{} parameters{}", size,
                                    inversion == Inversion::kDamped ? "" : " have their eigenvectors in memory")};
    }
    const auto options =
        fmt::format("relative-tolerance={:g},max-iterations={}", options_.relative_tolerance, options_.max_iterations);
    if (inversion == Inversion::kPseudo) {
      return {"cg:" + options, fmt::format("{} parameters; a preconditioner would leave the curvature's range", size)};
    }
    return system.point && covered_by_layers(*system.point)
               ? Choice{"cg:preconditioner=ekfac," + options,
                        fmt::format("{} parameters, all in layers that ekfac factors", size)}
               : Choice{"cg:" + options, fmt::format("{} parameters", size)};
  }

  AutoOptions options_;
};

}  // namespace

std::string_view picked_by_size(std::int64_t parameters, std::int64_t rows, Inversion inversion) {
  if (inversion == Inversion::kSegment || inversion == Inversion::kMemory) {
    return parameters <= kMostEigenvectors ? "direct" : "lanczos";
  }
  if (parameters <= kFewParameters) {
    return "direct";
  }
  if (inversion != Inversion::kDamped) {  // A^2 is where gradients conjugate slowly
    return parameters <= kMostEigenvectors ? "direct" : "";
  }
  return rows > 0 && rows < parameters && rows <= kFewRows ? "woodbury" : "";
}

std::string picked_solver(const Inverse& inverse) {
  const auto* made = dynamic_cast<const AutoInverse*>(&inverse);
  return made == nullptr ? std::string() : made->picked();
}

// `auto` is a word of the language, so the method's identifier is another.
WHENCE_METHOD(Solver, automatic, AutoSolver, AutoOptions)

}  // namespace whence
