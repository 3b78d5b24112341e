// The curvature replaced by the identity: gradient similarity under the influence function's signs. G. Pruthi, F. Liu,
// M. Sundararajan and S. Kale, "Estimating Training Data Influence by Tracing Gradient Descent", NeurIPS 2020.
#include <ATen/ATen.h>

#include "whence/solvers/solver.h"

namespace whence {
namespace {

class IdentityInverse : public Inverse {
 public:
  std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    x = b.clone();
    const SolverSummary summary{.termination = Termination::kConverged,
                                .seconds = 0,
                                .products = 0,
                                .message = "the curvature is replaced by the identity"};
    return std::vector<SolverSummary>(static_cast<std::size_t>(b.size(0)), summary);
  }
};

class IdentitySolver : public Solver {
 public:
  explicit IdentitySolver(NoOptions) {}
  std::unique_ptr<Inverse> prepare(const System& system) const override {
    check_damping(system.filter);
    return std::make_unique<IdentityInverse>();
  }
};

}  // namespace

WHENCE_METHOD(Solver, identity, IdentitySolver, NoOptions)

}  // namespace whence
