// A curvature's own eigendecomposition, inverted as it stands. For ekfac: R. Grosse et al., "Studying Large Language
// Model Generalization with Influence Functions", 2023. The answer is exact for the factors and approximate for the
// curvature that was asked for; the residual says by how much.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/tensors.h"
#include "whence/curvature/spectral_operator.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct EkfacSolverOptions {
  std::string factors = "ekfac";
  bool residual = true;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("factors", self.factors, OneOf{"ekfac|kfac|diagonal"},
          "what is fitted where the curvature has no eigenvectors of its own; give ekfac or kfac as --curvature for "
          "their options");
    field("residual", self.residual, kAny, "measure |b - A x|: a product a right-hand side");
  }
};

/// Of eigenvectors that are the operator's own: what rounding leaves in float32.
constexpr double kOwnTolerance = 1e-3;

class SpectralInverse : public Inverse {
 public:
  SpectralInverse(const System& system, std::shared_ptr<const SpectralOperator> factors, bool residual, bool own)
      : Inverse(system), factors_(std::move(factors)), residual_(residual), own_(own) {}

  std::shared_ptr<const SpectralOperator> factors() const override { return factors_; }

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    x = factors_->apply_function(b, of_block(system().filter));
    auto summaries = approximate_summaries(
        b, x, own_ ? "the curvature's own eigenvectors" : "the inverse of fitted factors", residual_);
    for (auto& summary : summaries) {
      if (own_ && residual_ && summary.relative_residual <= kOwnTolerance) {
        summary.termination = Termination::kConverged;
      }
    }
    return summaries;
  }

 private:
  std::shared_ptr<const SpectralOperator> factors_;
  bool residual_, own_;
};

class EkfacSolver : public Solver {
 public:
  explicit EkfacSolver(EkfacSolverOptions options) : options_(std::move(options)) {}
  SolverNeeds needs() const override { return {.point = true}; }
  bool is_exact() const override { return false; }
  std::optional<CurvatureFamily> family() const override { return CurvatureFamily::kGaussNewton; }
  bool takes_factors() const override { return true; }
  /// That of the residual.
  ProductCount product_count(const SystemTraits&) const override { return {1, 1}; }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    auto factors = std::dynamic_pointer_cast<const SpectralOperator>(system.a);
    const bool own = factors != nullptr;
    if (!own) {
      if (!system.point) {
        throw InvalidArgument(
            "ekfac: factors are fitted to a stage, and this operator comes from none: use --solver auto");
      }
      factors = std::dynamic_pointer_cast<const SpectralOperator>(
          create<Curvature>(options_.factors)->operator_at(*system.point));
    }
    return std::make_unique<SpectralInverse>(system, std::move(factors), options_.residual, own);
  }

 private:
  EkfacSolverOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, ekfac_inverse, EkfacSolver, EkfacSolverOptions)

}  // namespace whence
