// The curvature replaced by the identity: gradient similarity under the influence function's signs. G. Pruthi, F. Liu,
// M. Sundararajan and S. Kale, "Estimating Training Data Influence by Tracing Gradient Descent", NeurIPS 2020.
#include <ATen/ATen.h>

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
  IdentityInverse(const System& system, bool residual) : Inverse(system), residual_(residual) {}

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    x = b.clone();
    return approximate_summaries(b, x, "the curvature is replaced by the identity", residual_);
  }

 private:
  bool residual_;
};

class IdentitySolver : public Solver {
 public:
  explicit IdentitySolver(IdentityOptions options) : options_(options) {}
  bool is_exact() const override { return false; }
  bool has_own_damping() const override { return true; }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    return std::make_unique<IdentityInverse>(system, options_.residual);
  }

 private:
  IdentityOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, identity, IdentitySolver, IdentityOptions)

}  // namespace whence
