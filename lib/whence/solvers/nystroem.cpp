// The inverse of a randomised Nystroem approximation. R. Hataya and M. Yamada, "Nystroem method for accurate and
// scalable implicit differentiation", AISTATS 2023; the stabilised sketch of Frangella, Tropp and Udell 2023.
#include <fmt/format.h>

#include "whence/solvers/detail/low_rank.h"
#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct NystroemOptions {
  std::int64_t rank = 100;
  double relative_tolerance = 1e-6;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "products spent on the sketch, once; holds as many vectors");
    field("relative-tolerance", self.relative_tolerance, kUnitInterval,
          "converged means |b - A x| <= this * |b|; the work does not depend on it");
    field("seed", self.seed, kAtLeastZero, "of the sketch");
  }
};

class NystroemSolver : public Solver {
 public:
  explicit NystroemSolver(NystroemOptions options) : options_(options) {}
  SolverNeeds needs() const override { return {.semidefinite = true}; }
  bool needs_damping(std::int64_t) const override { return true; }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
    if (system.filter.inversion == Inversion::kDamped && system.filter.damping == 0) {
      throw InvalidArgument(
          "nystroem: damping = 0, expected > 0: the approximation is singular outside its span; use --damping "
          "auto, or --inversion pseudo");
    }
    auto part = detail::nystroem_approximation(*system.a, options_.rank,
                                               Random(static_cast<std::uint64_t>(options_.seed)).stream("nystroem"));
    auto name = fmt::format("rank-{} nystroem", part.values.size());
    if (part.most_negative < 0) {
      name += ", which needs a positive semidefinite curvature (gauss-newton; or use arnoldi),";
    }
    return std::make_unique<detail::LowRankInverse>(system, std::move(part), true, options_.relative_tolerance,
                                                    std::move(name));
  }

 private:
  NystroemOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, nystroem, NystroemSolver, NystroemOptions)

}  // namespace whence
