// min over a of sum_i loss(f(x_i), y_i) + lambda / 2 a' K a, f = f0 + K a, the loss being softmax cross-entropy or of
// one output the logistic loss: J. Zhu and T. Hastie, "Kernel Logistic Regression and the Import Vector Machine", JCGS
// 2005. There is no intercept: f0 is the offset. The minimum has p - y + lambda a = 0, which Newton's method solves
// with the matrix W K + lambda I, W the blocks of the loss's Hessian.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/random.h"
#include "whence/kernels/detail/kernel_system.h"

namespace whence {
namespace {

struct KernelLogisticOptions {
  double lambda = 0;
  std::int64_t folds = 5;
  std::int64_t seed = 0;
  std::int64_t max_iterations = 100;
  double tolerance = 1e-9;
  std::string outputs = "joint";

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("lambda", self.lambda, kAtLeastZero, "of the penalty; 0: the one of nine with the least loss by folds");
    field("folds", self.folds, Bound{2, 1e9, ">= 2"}, "parts that are left out in turn, at most one an example");
    field("seed", self.seed, kAtLeastZero, "of the folds");
    field("max-iterations", self.max_iterations, kAtLeastOne, "Newton's steps");
    field("tolerance", self.tolerance, kPositive, "largest entry of p - y + lambda a at which it has converged");
    field("outputs", self.outputs, OneOf{detail::kOutputsWords},
          "joint: one system of all outputs; separate: what couples different outputs is left out of the kernel");
  }
};

/// The loss of outputs f [N, C] against y [N, C] (one-hot, or 0 and 1), its gradient p - y and Hessian blocks.
struct LogisticLoss {
  at::Tensor values, slopes, blocks;  // [N], [N, C], [N, C, C]
};
LogisticLoss logistic_loss(const at::Tensor& f, const at::Tensor& y) {
  if (f.size(1) == 1) {
    const auto p = at::sigmoid(f);
    return {at::softplus(f).sub_(f * y).squeeze(1), p - y, (p * (1 - p)).unsqueeze(2)};
  }
  const auto p = at::softmax(f, 1);
  return {at::logsumexp(f, 1) - (f * y).sum(1), p - y, at::diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)};
}

/// 1 of the labels' classes, [N, C]: of one output whether it is the second.
at::Tensor one_hot_targets(const KernelProblem& problem) {
  const auto c = problem.kernel.size(1);
  return c == 1 ? problem.labels.to(at::kDouble).unsqueeze(1) : class_targets(problem.labels, c);
}

/// W K + lambda I.
at::Tensor newton_matrix(const at::Tensor& kernel, const at::Tensor& blocks, double lambda) {
  const auto n = blocks.size(0), c = blocks.size(1);
  auto out = at::matmul(blocks, kernel.view({n, c, n * c})).view({n * c, n * c});
  out.diagonal().add_(lambda);
  return out;
}

struct LogisticSolution {
  at::Tensor coefficients;  // [N, C]
  std::int64_t iterations = 0;
  double slope = 0;  // the largest entry of p - y + lambda a
};

/// From `begin`, or 0 where that is undefined.
LogisticSolution solve_logistic(const at::Tensor& kernel, const at::Tensor& start, const at::Tensor& y, double lambda,
                                const KernelLogisticOptions& options, const at::Tensor& begin) {
  const auto n = y.size(0), c = y.size(1);
  LogisticSolution out{begin.defined() ? begin : at::zeros({n, c}, at::kDouble)};
  const auto outputs = [&](const at::Tensor& a) { return start + at::mv(kernel, a.flatten()).view({n, c}); };
  const auto objective = [&](const at::Tensor& a, const at::Tensor& f) {
    return (logistic_loss(f, y).values.sum() + lambda / 2 * (a * (f - start)).sum()).item<double>();
  };
  auto f = outputs(out.coefficients);
  for (;; ++out.iterations) {
    const auto loss = logistic_loss(f, y);
    const auto slope = loss.slopes + lambda * out.coefficients;
    out.slope = slope.abs().max().item<double>();
    if (out.slope <= options.tolerance || out.iterations == options.max_iterations) {
      return out;
    }
    check_interruption();
    const auto [step, info] =
        at::linalg_solve_ex(newton_matrix(kernel, loss.blocks, lambda), slope.flatten().unsqueeze(1));
    if (info.item<int>() != 0 || !step.isfinite().all().item<bool>()) {
      throw NumericalError(
          fmt::format("kernel-logistic: Newton's matrix is singular to rounding at lambda {:.3g}: "
                      "take a larger lambda",
                      lambda));
    }
    const auto direction = step.view({n, c});
    const double before = objective(out.coefficients, f);
    bool moved = false;
    for (double length = 1; length > 1e-10 && !moved; length /= 2) {
      const auto next = out.coefficients - length * direction;
      const auto there = outputs(next);
      // to rounding: near the minimum the value no longer tells
      if (objective(next, there) <= before + 1e-14 * std::abs(before)) {
        out.coefficients = next;
        f = there;
        moved = true;
      }
    }
    if (!moved) {
      return out;
    }
  }
}

class KernelLogisticFit : public KernelFit {
 public:
  KernelLogisticFit(KernelProblem problem, KernelLogisticOptions options, double lambda, const at::Tensor& begin)
      : KernelFit(std::move(problem)),
        options_(std::move(options)),
        kernel_(detail::kernel_matrix(problem_.kernel, separate())),
        targets_(one_hot_targets(problem_)) {
    lambda_ = lambda;
    const auto offset = problem_.start.defined() ? problem_.start : at::zeros_like(targets_);
    const auto found = solve_logistic(kernel_, offset, targets_, lambda, options_, begin);
    coefficients_ = found.coefficients;
    const auto f = offset + at::mv(kernel_, coefficients_.flatten()).view(offset.sizes());
    loss_ = logistic_loss(f, targets_);
    converged_ = found.slope <= options_.tolerance;
    notes_.push_back(fmt::format("{} Newton step{}, largest slope {:.1e}{}", found.iterations,
                                 found.iterations == 1 ? "" : "s", found.slope, converged_ ? "" : ": not converged"));
  }
  void note(std::string text) { notes_.insert(notes_.begin(), std::move(text)); }

  at::Tensor outputs(const KernelQueries& queries) const override {
    detail::check_queries(problem_, queries);
    return detail::start_of(problem_, queries) +
           at::mv(asked(queries), coefficients_.flatten()).view({-1, targets_.size(1)});
  }
  const at::Tensor& coefficients() const override { return coefficients_; }
  std::vector<LeaveOut> ways() const override { return {LeaveOut::kRefit, LeaveOut::kOneStep}; }

  /// a moves by -(W K + lambda I)^-1 e_i (p_i - y_i).
  at::Tensor influence(const KernelQueries& queries) const override {
    detail::check_queries(problem_, queries);
    const auto n = targets_.size(0), c = targets_.size(1);
    const auto moves = (inverse().view({n * c, n, c}) * loss_.slopes).sum(2);
    return at::mm(asked(queries), moves).mul_(-static_cast<double>(n)).view({-1, c, n});
  }
  at::Tensor self_influence() const override {
    const auto n = targets_.size(0), c = targets_.size(1);
    const auto own = detail::own_blocks(at::mm(kernel_, inverse()), c);
    return (at::matmul(own, loss_.slopes.unsqueeze(2)).squeeze(2) * loss_.slopes).sum(1).mul_(-static_cast<double>(n));
  }

 protected:
  /// One Newton step from a on the objective without the group, whose matrix differs in the group's rows alone.
  at::Tensor without(const KernelQueries& queries, const std::vector<std::int64_t>& group, LeaveOut) const override {
    detail::check_queries(problem_, queries);
    const auto c = targets_.size(1);
    const auto rows = detail::rows_of(group, c), members = at::tensor(group, at::kLong);
    const auto columns = inverse().index_select(1, rows);  // [N C, g C]
    const auto seen = at::mm(kernel_.index_select(0, rows), columns);
    const auto blocks = at::block_diag(loss_.blocks.index_select(0, members).unbind(0));
    auto rest = at::mm(blocks, seen).neg_();
    rest.diagonal().add_(1);
    const auto slopes = loss_.slopes.index_select(0, members).flatten();
    const auto step = at::mv(columns, at::linalg_solve(rest, slopes));
    return outputs(queries) + at::mv(asked(queries), step).view({-1, c});
  }
  std::unique_ptr<KernelFit> refit(KernelProblem part, const at::Tensor& kept) const override {
    return std::make_unique<KernelLogisticFit>(std::move(part), options_, lambda_, coefficients_.index_select(0, kept));
  }

 private:
  bool separate() const { return options_.outputs == "separate"; }
  at::Tensor asked(const KernelQueries& queries) const { return detail::kernel_matrix(queries.kernel, separate()); }
  const at::Tensor& inverse() const {
    if (!inverse_.defined()) {
      inverse_ = at::linalg_inv(newton_matrix(kernel_, loss_.blocks, lambda_));
    }
    return inverse_;
  }

  KernelLogisticOptions options_;
  at::Tensor kernel_, targets_, coefficients_;
  LogisticLoss loss_;           // at the fit
  mutable at::Tensor inverse_;  // of Newton's matrix there; made when first asked for
};

/// The fold of each example, [N] int64: each class spread evenly over the folds.
at::Tensor drawn_folds(const at::Tensor& labels, std::int64_t classes, std::int64_t folds, std::uint64_t seed) {
  auto out = at::empty_like(labels);
  std::int64_t next = 0;
  for (std::int64_t c = 0; c < classes; ++c) {
    const auto members = labels.eq(c).nonzero().squeeze(1);
    const auto order = Random(seed).stream("folds").stream(std::to_string(c)).permutation(members.size(0));
    const auto numbers = at::arange(next, next + members.size(0), at::kLong).remainder(folds);
    out.index_put_({members.index_select(0, order)}, numbers);
    next += members.size(0);
  }
  return out;
}

struct ChosenPenalty {
  double lambda, loss;
  std::int64_t folds;
};
ChosenPenalty choose_penalty(const KernelProblem& problem, const KernelLogisticOptions& options) {
  const auto n = problem.kernel.size(0);
  const auto folds = std::min(options.folds, n);
  const auto kernel = detail::kernel_matrix(problem.kernel, options.outputs == "separate");
  const double scale = detail::mean_diagonal(kernel.diagonal(), "kernel-logistic");
  const auto fold = drawn_folds(problem.labels, problem.classes, folds, static_cast<std::uint64_t>(options.seed));
  const auto y = one_hot_targets(problem);
  const auto start = problem.start.defined() ? problem.start : at::zeros_like(y);
  constexpr int kMost = 2, kLeast = -6;
  std::vector<double> losses(kMost - kLeast + 1, 0);
  for (std::int64_t k = 0; k < folds; ++k) {
    const auto kept = fold.ne(k).nonzero().squeeze(1), out = fold.eq(k).nonzero().squeeze(1);
    const auto four = kernel.view(problem.kernel.sizes()).index_select(2, kept);
    const auto rows = [&](const at::Tensor& which) {
      return four.index_select(0, which).reshape({which.size(0) * y.size(1), kept.size(0) * y.size(1)});
    };
    const auto inside = rows(kept), asked = rows(out);
    at::Tensor begin;
    for (int power = kMost; power >= kLeast; --power) {
      const auto found = solve_logistic(inside, start.index_select(0, kept), y.index_select(0, kept),
                                        scale * std::pow(10.0, power), options, begin);
      begin = found.coefficients;
      const auto f = start.index_select(0, out) + at::mv(asked, begin.flatten()).view({out.size(0), y.size(1)});
      losses[static_cast<std::size_t>(kMost - power)] +=
          logistic_loss(f, y.index_select(0, out)).values.sum().item<double>();
    }
  }
  const auto best = std::min_element(losses.begin(), losses.end()) - losses.begin();
  return {scale * std::pow(10.0, kMost - static_cast<int>(best)), losses[static_cast<std::size_t>(best)], folds};
}

class KernelLogistic : public KernelSolver {
 public:
  explicit KernelLogistic(KernelLogisticOptions options) : options_(std::move(options)) {}

  std::unique_ptr<KernelFit> fit(const KernelProblem& problem) const override {
    check_problem(problem, "kernel-logistic");
    if (!problem.labels.defined() || problem.targets.defined()) {
      throw InvalidArgument("kernel-logistic: values to regress on, expected labels of classes: take kernel-ridge");
    }
    if (!detail::is_symmetric(detail::kernel_matrix(problem.kernel, false))) {
      throw InvalidArgument(
          "kernel-logistic: a kernel that is not symmetric, expected a symmetric one: take asymmetric or kernel-ridge");
    }
    if (options_.lambda > 0) {
      return std::make_unique<KernelLogisticFit>(problem, options_, options_.lambda, at::Tensor());
    }
    const auto chosen = choose_penalty(problem, options_);
    auto out = std::make_unique<KernelLogisticFit>(problem, options_, chosen.lambda, at::Tensor());
    out->note(fmt::format("lambda {:.3g}, of 9 the one with the least loss by {} folds, {:.3g} an example",
                          chosen.lambda, chosen.folds, chosen.loss / static_cast<double>(problem.kernel.size(0))));
    return out;
  }
  bool wants_symmetry() const override { return true; }
  bool classifies() const override { return true; }
  double bytes(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = static_cast<double>(examples) * static_cast<double>(outputs);
    return 8 * 6 * n * n;
  }
  double multiplications(std::int64_t examples, std::int64_t outputs) const override {
    const auto n = static_cast<double>(examples) * static_cast<double>(outputs);
    const double steps = options_.lambda > 0 ? 10 : 10 + 9 * 5 * static_cast<double>(options_.folds);
    return steps * n * n * n;
  }

 private:
  KernelLogisticOptions options_;
};

}  // namespace

WHENCE_METHOD(KernelSolver, kernel_logistic, KernelLogistic, KernelLogisticOptions)

}  // namespace whence
