// The curvature replaced by the identity: gradient similarity under the influence function's signs. G. Pruthi, F. Liu,
// M. Sundararajan and S. Kale, "Estimating Training Data Influence by Tracing Gradient Descent", NeurIPS 2020.
#include <ATen/ATen.h>

#include <chrono>

#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct IdentityOptions {
  bool residual = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("residual", self.residual, kAny, "measure |b - A x|: a product a right-hand side, where the rest takes none");
  }
};

class IdentityInverse : public Inverse {
 public:
  IdentityInverse(const System& system, bool residual) : system_(system), residual_(residual) {}
  std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    const auto start = std::chrono::steady_clock::now();
    x = b.clone();
    return approximate_summaries(system_, b, x, start, "the curvature is replaced by the identity", residual_);
  }

 private:
  System system_;
  bool residual_;
};

class IdentitySolver : public Solver {
 public:
  explicit IdentitySolver(IdentityOptions options) : options_(options) {}
  std::unique_ptr<Inverse> prepare(const System& system) const override {
    check_damping(system.filter);
    return std::make_unique<IdentityInverse>(system, options_.residual);
  }

 private:
  IdentityOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, identity, IdentitySolver, IdentityOptions)

}  // namespace whence
