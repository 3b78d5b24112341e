// min over a of sum_i |f(x_i) - y_i|^2 / 2 + lambda / 2 a' K a, f = f0 + K a: (K + lambda I) a = y - f0. C. Saunders,
// A. Gammerman and V. Vovk, "Ridge Regression Learning Algorithm in Dual Variables", ICML 1998. Of a kernel that is not
// symmetric it is that system alone, the minimum of nothing; what it says without an example is its closed form too.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "whence/core/error.h"
#include "whence/core/symmetric_eigen.h"
#include "whence/kernels/detail/kernel_system.h"

namespace whence {
namespace {

struct KernelRidgeOptions {
  double lambda = 0;
  double relative_lambda = 0;
  std::string outputs = "joint";

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("lambda", self.lambda, kAtLeastZero,
          "added to the diagonal; 0 here and in relative-lambda: the one of nine whose leave-one-out error is least");
    field("relative-lambda", self.relative_lambda, kAtLeastZero,
          "times the kernel's largest singular value, and added");
    field("outputs", self.outputs, OneOf{detail::kOutputsWords},
          "joint: one system of all outputs; separate: one an output, as if they did not share parameters");
  }
};

class KernelRidgeFit : public detail::LinearFit {
 public:
  KernelRidgeFit(KernelProblem problem, bool separate, at::Tensor inverse, bool symmetric, double lambda)
      : LinearFit(std::move(problem), separate, std::move(inverse), true, symmetric), separate_outputs_(separate) {
    lambda_ = lambda;
  }
  static std::unique_ptr<KernelRidgeFit> at_lambda(KernelProblem problem, bool separate, double lambda);
  void note(std::string text) { notes_.push_back(std::move(text)); }

 protected:
  std::unique_ptr<KernelFit> refit(KernelProblem part, const at::Tensor&) const override {
    return at_lambda(std::move(part), separate_outputs_, lambda_);
  }

 private:
  bool separate_outputs_;
};

[[noreturn]] void refuse_singular(double lambda) {
  throw NumericalError(
      fmt::format("kernel-ridge: the kernel + {:.3g} I is singular or not positive definite to "
                  "rounding: take a larger lambda",
                  lambda));
}

at::Tensor regularised_inverse(const at::Tensor& kernel, bool symmetric, double lambda) {
  auto matrix = symmetric ? (kernel + kernel.t()) / 2 : kernel.clone();
  matrix.diagonal().add_(lambda);
  if (!symmetric) {
    const auto [inverse, info] = at::linalg_inv_ex(matrix);
    if (info.item<int>() != 0 || !inverse.isfinite().all().item<bool>()) {
      refuse_singular(lambda);
    }
    return inverse;
  }
  const auto [factor, info] = at::linalg_cholesky_ex(matrix);
  if (info.item<int>() != 0) {
    refuse_singular(lambda);
  }
  return at::cholesky_inverse(factor);
}

std::unique_ptr<KernelRidgeFit> KernelRidgeFit::at_lambda(KernelProblem problem, bool separate, double lambda) {
  const auto kernel = detail::kernel_matrix(problem.kernel, separate);
  const bool symmetric = detail::is_symmetric(kernel);
  auto inverse = regularised_inverse(kernel, symmetric, lambda);
  return std::make_unique<KernelRidgeFit>(std::move(problem), separate, std::move(inverse), symmetric, lambda);
}

/// sum_i |y_i - what the fit without i says of it|^2, from the blocks of the inverse that are each example's own.
double leave_one_out_error(const at::Tensor& inverse, const at::Tensor& targets, std::int64_t outputs) {
  const auto coefficients = at::mv(inverse, targets).view({-1, outputs, 1});
  const auto errors = at::linalg_solve(detail::own_blocks(inverse, outputs), coefficients);
  return errors.square().sum().item<double>();
}

struct Chosen {
  double lambda, error;
  int tried;
};
Chosen choose_lambda(const KernelProblem& problem, bool separate) {
  const auto kernel = detail::kernel_matrix(problem.kernel, separate), targets = detail::regressed(problem);
  const bool symmetric = detail::is_symmetric(kernel);
  const double scale = detail::mean_diagonal(kernel.diagonal().abs(), "kernel-ridge");
  Chosen out{0, std::numeric_limits<double>::infinity(), 0};
  for (int power = 2; power >= -6; --power) {
    const double lambda = scale * std::pow(10.0, power);
    try {
      const double error =
          leave_one_out_error(regularised_inverse(kernel, symmetric, lambda), targets, problem.kernel.size(1));
      ++out.tried;
      if (error < out.error) {
        out.lambda = lambda;
        out.error = error;
      }
    } catch (const NumericalError&) {  // too small for this kernel
    }
  }
  if (!std::isfinite(out.error)) {
    refuse_singular(scale);
  }
  return out;
}

class KernelRidge : public KernelSolver {
 public:
  explicit KernelRidge(KernelRidgeOptions options) : options_(std::move(options)) {}

  std::unique_ptr<KernelFit> fit(const KernelProblem& problem) const override {
    check_problem(problem, "kernel-ridge");
    const bool separate = options_.outputs == "separate";
    if (options_.lambda == 0 && options_.relative_lambda == 0) {
      const auto chosen = choose_lambda(problem, separate);
      auto out = KernelRidgeFit::at_lambda(problem, separate, chosen.lambda);
      out->note(fmt::format("lambda {:.3g}, of {} the one with the least leave-one-out error, {:.3g} an example",
                            chosen.lambda, chosen.tried, chosen.error / static_cast<double>(problem.kernel.size(0))));
      return out;
    }
    double lambda = options_.lambda;
    if (options_.relative_lambda > 0) {
      const auto kernel = detail::kernel_matrix(problem.kernel, separate);
      lambda += options_.relative_lambda * detail::operator_norm(kernel, detail::is_symmetric(kernel));
    }
    return KernelRidgeFit::at_lambda(problem, separate, lambda);
  }
  bool classifies() const override { return false; }
  double bytes(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = static_cast<double>(examples) * static_cast<double>(outputs);
    return 8 * 5 * n * n;
  }
  double multiplications(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = static_cast<double>(examples) * static_cast<double>(outputs);
    // an inverse takes as long as 1.3 products of such matrices, and one product is made
    return (options_.lambda == 0 && options_.relative_lambda == 0 ? 14 : 3) * n * n * n;
  }

 private:
  KernelRidgeOptions options_;
};

}  // namespace

WHENCE_METHOD(KernelSolver, kernel_ridge, KernelRidge, KernelRidgeOptions)

}  // namespace whence
