// Picks a solver by what the operator is and how large: the cheapest exact one, then conjugate gradients. ekfac is
// their preconditioner for the Hessian alone. A Gauss-Newton matrix has a few large eigenvalues, the examples that are
// not learned, and is the damping and the penalty elsewhere, which conjugate gradients take in one step; ekfac spreads
// those few over many directions, where it then divides by what is not there (docs/accuracy-and-cost.md).
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/curvature/gram_operator.h"
#include "whence/curvature/spectral_operator.h"
#include "whence/solvers/detail/dense.h"
#include "whence/solvers/solver.h"

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
  AutoInverse(const System& system, std::unique_ptr<Solver> solver, Choice choice)
      : Inverse(system), solver_(std::move(solver)), inverse_(solver_->prepare(system)), choice_(std::move(choice)) {}
  MatrixRoot root() const override { return inverse_->root(); }
  std::shared_ptr<const SpectralOperator> factors() const override { return inverse_->factors(); }
  std::string picked() const override { return choice_.spec; }

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress& progress) const override {
    auto summaries = inverse_->apply(b, x, progress);
    for (auto& summary : summaries) {
      summary.message = fmt::format("{}; auto picked {}: {}", summary.message, choice_.spec, choice_.reason);
    }
    return summaries;
  }

 private:
  std::unique_ptr<Solver> solver_;
  std::unique_ptr<Inverse> inverse_;
  Choice choice_;
};

SystemTraits traits_of(const System& system) {
  SystemTraits out{.parameters = system.a->size(),
                   .eigenvectors = dynamic_cast<const SpectralOperator*>(system.a.get()) != nullptr,
                   .inversion = system.filter.inversion,
                   .point = system.point,
                   .semidefinite = system.semidefinite};
  if (const auto* gram = dynamic_cast<const GramOperator*>(system.a.get())) {
    out.rows = [gram, damping = system.filter.damping] {
      return gram->diagonal().min().item<double>() + damping > 0 ? gram->rows() : 0;
    };
  }
  return out;
}

class AutoSolver : public Solver {
 public:
  explicit AutoSolver(AutoOptions options) : options_(options) {}
  bool picks() const override { return true; }
  std::string pick(const SystemTraits& traits) const override { return choose(traits).spec; }
  ProductCount product_count(const SystemTraits& traits) const override {
    return create<Solver>(pick(traits))->product_count(traits);
  }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    auto choice = choose(traits_of(system));
    return std::make_unique<AutoInverse>(system, create<Solver>(choice.spec), std::move(choice));
  }

 private:
  Choice choose(const SystemTraits& traits) const {
    const auto size = traits.parameters;
    const bool damped = traits.inversion == Inversion::kDamped;
    if (traits.eigenvectors) {
      return {"ekfac", "the curvature comes with its eigenvectors"};
    }
    if (size <= (damped ? kFewParameters : kMostEigenvectors)) {  // A^2 is where gradients conjugate slowly
      return {"direct", fmt::format("{} parameters{}", size, damped ? "" : " have their eigenvectors in memory")};
    }
    if (!Filter{traits.inversion}.inverts()) {
      return {"lanczos", fmt::format("{} parameters are too many for their eigenvectors", size)};
    }
    if (const auto rows = damped ? traits.rows() : 0; rows > 0 && rows < size && rows <= kFewRows) {
      const double asked = options_.relative_tolerance;
      return {
          asked > detail::kFactorisedTolerance ? fmt::format("woodbury:relative-tolerance={:g}", asked) : "woodbury",
          fmt::format("{} rows are fewer than {} parameters", rows, size)};
    }
    const auto options =
        fmt::format("relative-tolerance={:g},max-iterations={}", options_.relative_tolerance, options_.max_iterations);
    if (traits.inversion == Inversion::kPseudo) {
      return {"cg:" + options, fmt::format("{} parameters; a preconditioner would leave the curvature's range", size)};
    }
    if (traits.semidefinite) {
      return {"cg:" + options, fmt::format("{} parameters, of a curvature without negative eigenvalues", size)};
    }
    return traits.point && covered_by_layers(*traits.point)
               ? Choice{"cg:preconditioner=ekfac," + options,
                        fmt::format("{} parameters, all in layers that ekfac factors", size)}
               : Choice{"cg:" + options, fmt::format("{} parameters", size)};
  }

  AutoOptions options_;
};

}  // namespace

// `auto` is a word of the language, so the method's identifier is another.
WHENCE_METHOD(Solver, automatic, AutoSolver, AutoOptions)

}  // namespace whence
