#pragma once
#include <string>

#include "whence/core/options.h"
#include "whence/curvature/spectral_operator.h"
#include "whence/solvers/solver.h"

namespace whence::detail {

/// Of solvers that can be preconditioned.
struct PreconditionerOptions {
  std::string preconditioner = "none";
  std::int64_t rank = 100;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("preconditioner", self.preconditioner, OneOf{"none|diagonal|ekfac|nystroem"},
          "approximate inverse that the solve starts from: of the diagonal or ekfac curvature, or of a random sketch, "
          "nystroem; docs/accuracy-and-cost.md has which makes cg shorter where");
    field("rank", self.rank, kAtLeastOne, "of preconditioner nystroem, which costs as many products, once");
  }
};

/// A fixed symmetric positive definite approximate inverse of linear_system(system).a, for rows of blocks; empty for
/// "none". "nystroem" spends `rank` products (twice that where A is squared), the others fit a curvature at the
/// system's point. Throws InvalidArgument where the point is null, the curvature is not spectral, or the filter is
/// pseudo, whose answer a preconditioner would move out of A's range.
BlockMap make_preconditioner(const System& system, const std::string& name, std::int64_t rank);

/// A solver whose Options hold PreconditionerOptions as `preconditioning`, and whose block solves are
/// Run(options, system, b, progress).run(x).
template <class Options, class Run>
class PreconditionedSolver : public IterativeSolver {
 public:
  explicit PreconditionedSolver(Options options) : options_(std::move(options)) {}
  std::vector<SolverSummary> solve(const LinearSystem& system, const at::Tensor& b, at::Tensor& x,
                                   const Progress& progress) const override {
    return Run(options_, system, b, progress).run(x);
  }

 protected:
  const Options& options() const { return options_; }
  BlockMap preconditioner(const System& system) const override {
    return make_preconditioner(system, options_.preconditioning.preconditioner, options_.preconditioning.rank);
  }

 private:
  Options options_;
};

/// 1 / (max(h, 0) + damping) of an operator whose eigendecomposition is at hand, 1 / (h^2 + damping^2) for `filtered`;
/// no denominator is less than 1e-8 of the largest.
BlockMap spectral_preconditioner(std::shared_ptr<const SpectralOperator> a, const Filter& filter);

/// Z. Frangella, J. Tropp and M. Udell, "Randomized Nystroem preconditioning", SIAM J. Matrix Anal. Appl. 44 (2023),
/// equation 5.3: 1 / (base + shift) on a random sketch's span, one number on the complement.
BlockMap nystroem_preconditioner(const LinearOperator& base, double shift, std::int64_t rank);

}  // namespace whence::detail
