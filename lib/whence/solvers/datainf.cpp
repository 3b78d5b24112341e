// The mean of the examples' inverses: curvature/datainf.h says what and from where.
#include "whence/curvature/datainf.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/solvers/solver.h"

namespace whence {
namespace {

struct DataInfOptions {
  double kept_bytes = 4e9;
  bool residual = true;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("kept-bytes", self.kept_bytes, kAtLeastZero,
          "keep the layers' inputs and signals between products when they take at most this");
    field("residual", self.residual, kAny, "measure |b - A x|: a product a right-hand side");
  }
};

class DataInfSolver : public Solver {
 public:
  explicit DataInfSolver(DataInfOptions options) : options_(options) {}
  std::string_view family() const override { return "empirical-fisher"; }

  std::unique_ptr<Inverse> prepare(const System& system) const override {
    check_damping(system.filter);
    if (!system.point) {
      throw InvalidArgument(
          "datainf: it takes the gradients of a stage's examples, and this operator comes from none: use "
          "--solver auto");
    }
    if (system.filter.inversion != Inversion::kDamped) {
      throw InvalidArgument(
          fmt::format("datainf: inversion = {}, expected damped: use --inversion damped or --solver auto",
                      to_string(system.filter.inversion)));
    }
    return std::make_unique<Applied>(system, datainf_inverse(*system.point, system.filter.damping, options_.kept_bytes),
                                     options_.residual);
  }

 private:
  class Applied : public Inverse {
   public:
    Applied(const System& system, OperatorPtr inverse, bool residual)
        : system_(system), inverse_(std::move(inverse)), residual_(residual) {}
    std::vector<SolverSummary> apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
      const auto start = std::chrono::steady_clock::now();
      x = inverse_->apply(b);
      return approximate_summaries(system_, b, x, start, "the mean of the examples' inverses", residual_);
    }

   private:
    System system_;
    OperatorPtr inverse_;
    bool residual_;
  };
  DataInfOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, datainf, DataInfSolver, DataInfOptions)

}  // namespace whence
