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

class DataInfInverse : public Inverse {
 public:
  DataInfInverse(const System& system, const DataInfOptions& options)
      : Inverse(system),
        mean_(datainf_inverse(*system.point, system.filter.damping, options.kept_bytes)),
        residual_(options.residual) {}

 protected:
  std::vector<SolverSummary> do_apply(const at::Tensor& b, at::Tensor& x, const Progress&) const override {
    x = mean_->apply(b);
    return approximate_summaries(b, x, "the mean of the examples' inverses", residual_);
  }

 private:
  OperatorPtr mean_;
  bool residual_;
};

class DataInfSolver : public Solver {
 public:
  explicit DataInfSolver(DataInfOptions options) : options_(options) {}
  SolverNeeds needs() const override { return {.point = true}; }
  bool is_exact() const override { return false; }
  std::optional<CurvatureFamily> family() const override { return CurvatureFamily::kEmpiricalFisher; }
  bool has_own_damping() const override { return true; }

 protected:
  std::unique_ptr<Inverse> do_prepare(const System& system) const override {
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
    return std::make_unique<DataInfInverse>(system, options_);
  }

 private:
  DataInfOptions options_;
};

}  // namespace

WHENCE_METHOD(Solver, datainf, DataInfSolver, DataInfOptions)

}  // namespace whence
