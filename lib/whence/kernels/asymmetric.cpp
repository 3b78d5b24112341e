// Least-squares support vectors of a kernel that is not symmetric: M. He, F. He, L. Shi, X. Huang and J. Suykens,
// "Learning with Asymmetric Kernels: Least Squares and Feature Interpretation", 2022, without intercept. With H_ij =
// y_i K(x_i, x_j) y_j,
//
//   [ I / gamma   H         ] [a]   [t]
//   [ H'          I / gamma ] [b] = [t],    t = 1, with a start 1 - y f0,
//
// and two functions: omega(x) = sum_i a_i y_i K(x_i, x), of the training examples as rows, and nu(x) = sum_i b_i y_i
// K(x, x_i), as columns; f = f0 + mix omega + (1 - mix) nu. Of several outputs each class against the others, on the
// kernel of its own output.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/core/tensors.h"
#include "whence/kernels/detail/kernel_system.h"

namespace whence {
namespace {

struct AsymmetricOptions {
  double gamma = 1;
  double mix = 0.5;
  bool scale = true;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("gamma", self.gamma, kPositive, "what errors cost");
    field("mix", self.mix, kUnitInterval,
          "1: the training examples as rows alone; 0: as columns, the signed side of a-signgd, alone");
    field("scale", self.scale, kAny, "divide the kernel by its mean diagonal, so that gamma means the same for all");
  }
};

class AsymmetricFit : public KernelFit {
 public:
  AsymmetricFit(KernelProblem problem, AsymmetricOptions options) : KernelFit(std::move(problem)), options_(options) {
    const auto n = problem_.kernel.size(0), c = problem_.kernel.size(1);
    TensorList as_rows, as_columns;
    for (std::int64_t k = 0; k < c; ++k) {
      const auto kernel = detail::own_kernel(problem_, k);
      const double size = options_.scale ? detail::mean_diagonal(kernel.diagonal().abs(), "asymmetric") : 1;
      const auto y = detail::class_signs(problem_, k);
      const auto h = y.unsqueeze(1) * (kernel / size) * y;
      const auto diagonal = at::eye(n, at::kDouble) / options_.gamma;
      const auto matrix = at::cat({at::cat({diagonal, h}, 1), at::cat({h.t(), diagonal}, 1)}, 0);
      const auto t = problem_.start.defined() ? 1 - y * problem_.start.select(1, k) : at::ones({n}, at::kDouble);
      const auto [solved, info] = at::linalg_solve_ex(matrix, at::cat({t, t}).unsqueeze(1));
      if (info.item<int>() != 0 || !solved.isfinite().all().item<bool>()) {
        throw NumericalError(
            fmt::format("asymmetric: the system is singular at gamma = {:.3g}: take another gamma", options_.gamma));
      }
      as_rows.push_back(solved.squeeze(1).narrow(0, 0, n) * y / size);
      as_columns.push_back(solved.squeeze(1).narrow(0, n, n) * y / size);
    }
    rows_ = at::stack(as_rows, 1);
    columns_ = at::stack(as_columns, 1);
    notes_.push_back(
        fmt::format("gamma {}, {} of the direction in which training examples are rows", options_.gamma, options_.mix));
  }

  at::Tensor outputs(const KernelQueries& queries) const override {
    detail::check_queries(problem_, queries);
    auto out = detail::start_of(problem_, queries) + (1 - options_.mix) * detail::own_sums(queries.kernel, columns_);
    if (options_.mix > 0) {
      const bool flipped = queries.flipped.defined();
      if (flipped && queries.flipped.sizes() != queries.kernel.permute({2, 3, 0, 1}).sizes()) {
        throw InvalidArgument("asymmetric: queries as columns of another shape than the transpose of them as rows");
      }
      const auto seen = flipped ? queries.flipped.permute({2, 3, 0, 1}) : queries.kernel;
      out = out + options_.mix * detail::own_sums(seen, rows_);
    }
    return out;
  }
  /// Those of nu.
  const at::Tensor& coefficients() const override { return columns_; }

 protected:
  std::unique_ptr<KernelFit> refit(KernelProblem part, const at::Tensor&) const override {
    return std::make_unique<AsymmetricFit>(std::move(part), options_);
  }

 private:
  AsymmetricOptions options_;
  at::Tensor rows_, columns_;  // a y and b y: [N, C]
};

class Asymmetric : public KernelSolver {
 public:
  explicit Asymmetric(AsymmetricOptions options) : options_(options) {}

  std::unique_ptr<KernelFit> fit(const KernelProblem& problem) const override {
    check_problem(problem, "asymmetric");
    if (!problem.labels.defined() || problem.targets.defined()) {
      throw InvalidArgument("asymmetric: values to regress on, expected labels of classes: take kernel-ridge");
    }
    return std::make_unique<AsymmetricFit>(problem, options_);
  }
  bool classifies() const override { return true; }
  bool both_directions() const override { return true; }
  double bytes(std::int64_t examples, std::int64_t) const override {
    const auto n = 2 * static_cast<double>(examples);
    return 8 * 3 * n * n;
  }
  double multiplications(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = 2 * static_cast<double>(examples);
    return n * n * n / 3 * static_cast<double>(outputs);
  }

 private:
  AsymmetricOptions options_;
};

}  // namespace

WHENCE_METHOD(KernelSolver, asymmetric, Asymmetric, AsymmetricOptions)

}  // namespace whence
