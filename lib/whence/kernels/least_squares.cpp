// a = K^+ (y - f0): of all that fit the targets best, the one whose parameters move least, where gradient descent on
// the linearised model ends that began at f0.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/core/symmetric_eigen.h"
#include "whence/kernels/detail/kernel_system.h"

namespace whence {
namespace {

struct LeastSquaresOptions {
  double tolerance = 1e-10;
  std::string outputs = "joint";

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("tolerance", self.tolerance, kUnitInterval,
          "singular values of the kernel below it times the largest count as 0");
    field("outputs", self.outputs, OneOf{detail::kOutputsWords},
          "joint: one system of all outputs; separate: one an output, as if they did not share parameters");
  }
};

struct PseudoInverse {
  at::Tensor matrix;
  std::int64_t rank;
  bool symmetric;
};

PseudoInverse pseudo_inverse(const at::Tensor& kernel, double tolerance) {
  const bool symmetric = detail::is_symmetric(kernel);
  at::Tensor left, right, sizes;  // kernel = left diag(sizes) right'
  if (symmetric) {
    const auto [values, vectors] = symmetric_eigen((kernel + kernel.t()) / 2, "least-squares: the kernel");
    left = right = vectors;
    sizes = values;
  } else {
    const auto [u, s, vh] = at::linalg_svd(kernel, /*full_matrices=*/false);
    left = u;
    right = vh.t();
    sizes = s;
  }
  // of a symmetric kernel what is below 0 is rounding, or no kernel
  const auto kept = sizes.gt(tolerance * sizes.abs().max()).logical_and(sizes.gt(0)).nonzero().squeeze(1);
  if (kept.numel() == 0 && sizes.abs().max().item<double>() > 0) {
    throw NumericalError(fmt::format(
        "least-squares: tolerance = {:g} leaves none of the kernel's directions, expected well below 1", tolerance));
  }
  if (kept.numel() == 0) {
    throw NumericalError("least-squares: the kernel is 0, and nothing can be learnt from it");
  }
  const auto scaled = right.index_select(1, kept) / sizes.index_select(0, kept);
  return {at::mm(scaled, left.index_select(1, kept).t()), kept.numel(), symmetric};
}

class LeastSquaresFit : public detail::LinearFit {
 public:
  LeastSquaresFit(KernelProblem problem, const LeastSquaresOptions& options, const PseudoInverse& found)
      : LinearFit(std::move(problem), options.outputs == "separate", found.matrix, found.rank == found.matrix.size(0),
                  found.symmetric),
        options_(options) {
    lambda_ = 0;
    notes_.push_back(fmt::format("rank {} of {}", found.rank, found.matrix.size(0)));
  }
  static std::unique_ptr<KernelFit> make(KernelProblem problem, const LeastSquaresOptions& options) {
    const auto found =
        pseudo_inverse(detail::kernel_matrix(problem.kernel, options.outputs == "separate"), options.tolerance);
    return std::make_unique<LeastSquaresFit>(std::move(problem), options, found);
  }

 protected:
  std::unique_ptr<KernelFit> refit(KernelProblem part, const at::Tensor&) const override {
    return make(std::move(part), options_);
  }

 private:
  LeastSquaresOptions options_;
};

class LeastSquares : public KernelSolver {
 public:
  explicit LeastSquares(LeastSquaresOptions options) : options_(std::move(options)) {}

  std::unique_ptr<KernelFit> fit(const KernelProblem& problem) const override {
    check_problem(problem, "least-squares");
    return LeastSquaresFit::make(problem, options_);
  }
  bool classifies() const override { return false; }
  double bytes(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = static_cast<double>(examples) * static_cast<double>(outputs);
    return 8 * 6 * n * n;
  }
  double multiplications(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = static_cast<double>(examples) * static_cast<double>(outputs);
    return 12 * n * n * n;
  }

 private:
  LeastSquaresOptions options_;
};

}  // namespace

WHENCE_METHOD(KernelSolver, least_squares, LeastSquares, LeastSquaresOptions)

}  // namespace whence
