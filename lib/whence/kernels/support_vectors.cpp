// Support vector classification and regression on a kernel that is given, by libsvm: C. Cortes and V. Vapnik,
// "Support-Vector Networks", 1995; C.-C. Chang and C.-J. Lin, "LIBSVM", ACM TIST 2011. Of several outputs each class
// against the others, on the kernel of its own output.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <libsvm/svm.h>

#include <cmath>
#include <memory>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/tensors.h"
#include "whence/kernels/detail/kernel_system.h"

namespace whence {
namespace {

struct SupportVectorOptions {
  double c = 1;
  double epsilon = 0.1;
  std::string form = "auto";
  bool scale = true;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("c", self.c, kPositive, "what an example's error costs");
    field("epsilon", self.epsilon, kAtLeastZero, "of svr: errors below it cost nothing");
    field("form", self.form, OneOf{"auto|svc|svr"},
          "svc separates the labels; svr regresses on them, as it must where the model's output at the start is an "
          "offset; auto: svr where it must");
    field("scale", self.scale, kAny, "divide the kernel by its mean diagonal, so that c means the same for all");
  }
};

/// One two-sided problem: f = kernel w - rho.
struct Machine {
  at::Tensor weights;  // [N]
  double intercept = 0;
  std::int64_t vectors = 0;
};

Machine train_machine(const at::Tensor& kernel, const at::Tensor& targets, bool regression,
                      const SupportVectorOptions& options) {
  const auto n = kernel.size(0), stride = n + 2;
  if (!regression && targets.min().equal(targets.max())) {  // a class that no example is of, or all are
    return {at::zeros({n}, at::kDouble), targets[0].item<double>(), 0};
  }
  const auto matrix = kernel.contiguous(), values = targets.contiguous();
  std::vector<svm_node> nodes(static_cast<std::size_t>(n * stride));
  std::vector<svm_node*> rows;
  for (std::int64_t i = 0; i < n; ++i) {
    auto* row = nodes.data() + i * stride;
    row[0] = {0, static_cast<double>(i + 1)};  // a precomputed kernel's row says which it is
    for (std::int64_t j = 0; j < n; ++j) {
      row[j + 1] = {static_cast<int>(j + 1), matrix.data_ptr<double>()[i * n + j]};
    }
    row[n + 1] = {-1, 0};
    rows.push_back(row);
  }
  const svm_problem problem{static_cast<int>(n), values.data_ptr<double>(), rows.data()};
  svm_parameter parameter{};
  parameter.svm_type = regression ? EPSILON_SVR : C_SVC;
  parameter.kernel_type = PRECOMPUTED;
  parameter.cache_size = 100;
  parameter.eps = 1e-6;
  parameter.C = options.c;
  parameter.p = options.epsilon;
  if (const auto* wrong = svm_check_parameter(&problem, &parameter)) {
    throw InvalidArgument(fmt::format("support-vectors: {}", wrong));
  }
  svm_set_print_string_function([](const char*) {});
  const std::unique_ptr<svm_model, void (*)(svm_model*)> model(
      svm_train(&problem, &parameter), [](svm_model* made) { svm_free_and_destroy_model(&made); });
  Machine out{at::zeros({n}, at::kDouble)};
  out.vectors = model->l;
  const double sign = regression || model->label[0] > 0 ? 1 : -1;  // the first label is libsvm's positive one
  for (int k = 0; k < model->l; ++k) {
    out.weights[model->sv_indices[k] - 1] = sign * model->sv_coef[0][k];
  }
  out.intercept = -sign * model->rho[0];
  return out;
}

class SupportVectorFit : public KernelFit {
 public:
  SupportVectorFit(KernelProblem problem, SupportVectorOptions options)
      : KernelFit(std::move(problem)), options_(std::move(options)) {
    const auto n = problem_.kernel.size(0), c = problem_.kernel.size(1);
    const bool regression = options_.form == "svr" || problem_.start.defined() || problem_.targets.defined();
    TensorList weights, intercepts;
    std::int64_t vectors = 0;
    for (std::int64_t k = 0; k < c; ++k) {
      check_interruption();
      const auto kernel = detail::own_kernel(problem_, k);
      const double size = options_.scale ? detail::mean_diagonal(kernel.diagonal(), "support-vectors") : 1;
      const auto machine = train_machine(kernel / size, targets(k), regression, options_);
      weights.push_back(machine.weights / size);
      intercepts.push_back(at::full({1}, machine.intercept, at::kDouble));
      vectors += machine.vectors;
    }
    coefficients_ = at::stack(weights, 1);
    intercepts_ = at::cat(intercepts);
    notes_.push_back(
        fmt::format("{} by libsvm, {} support vectors of {} an output", regression ? "svr" : "svc", vectors / c, n));
  }

  at::Tensor outputs(const KernelQueries& queries) const override {
    detail::check_queries(problem_, queries);
    return detail::start_of(problem_, queries) + detail::own_sums(queries.kernel, coefficients_) + intercepts_;
  }
  const at::Tensor& coefficients() const override { return coefficients_; }

 protected:
  std::unique_ptr<KernelFit> refit(KernelProblem part, const at::Tensor&) const override {
    return std::make_unique<SupportVectorFit>(std::move(part), options_);
  }

 private:
  /// What the machine of output k is to say: -1 and 1, or values less the start.
  at::Tensor targets(std::int64_t k) const {
    const auto start = [&](const at::Tensor& y) {
      return problem_.start.defined() ? y - problem_.start.select(1, k) : y;
    };
    if (problem_.targets.defined()) {
      return start(problem_.targets.select(1, k));
    }
    return start(detail::class_signs(problem_, k));
  }

  SupportVectorOptions options_;
  at::Tensor coefficients_, intercepts_;  // [N, C], [C]
};

class SupportVectors : public KernelSolver {
 public:
  explicit SupportVectors(SupportVectorOptions options) : options_(std::move(options)) {}

  std::unique_ptr<KernelFit> fit(const KernelProblem& problem) const override {
    check_problem(problem, "support-vectors");
    if (options_.form == "svc" && (problem.start.defined() || problem.targets.defined())) {
      throw InvalidArgument(
          fmt::format("support-vectors: form = svc {}, expected svr or auto",
                      problem.start.defined() ? "with the model's output at the start as an offset" : "of values"));
    }
    for (std::int64_t k = 0; k < problem.kernel.size(1); ++k) {
      if (!detail::is_symmetric(detail::own_kernel(problem, k))) {
        throw InvalidArgument(
            "support-vectors: a kernel that is not symmetric, expected a symmetric one: take asymmetric");
      }
    }
    return std::make_unique<SupportVectorFit>(problem, options_);
  }
  bool wants_symmetry() const override { return true; }
  bool classifies() const override { return true; }
  double bytes(std::int64_t examples, std::int64_t) const override {
    const auto n = static_cast<double>(examples);
    return 24 * n * n + 1e8;
  }
  double multiplications(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = static_cast<double>(examples);
    return 100 * n * n * static_cast<double>(outputs);
  }

 private:
  SupportVectorOptions options_;
};

}  // namespace

WHENCE_METHOD(KernelSolver, support_vectors, SupportVectors, SupportVectorOptions)

}  // namespace whence
