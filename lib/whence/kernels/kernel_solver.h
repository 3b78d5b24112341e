#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/registry.h"

namespace whence {

/// What is learnt from a kernel. All float64 on the CPU but the labels. In what follows f(x) = f0(x) + sum_i,c'
/// K((x, c), (i, c')) a_ic', f0 = 0 without a start.
struct KernelProblem {
  at::Tensor kernel;         ///< [N, C, N, C], the training examples against themselves.
  at::Tensor labels;         ///< [N] int64, 0 .. classes - 1; undefined: `targets` are given.
  std::int64_t classes = 0;  ///< C, or 2 where C is 1: the one logit of a binary task.
  at::Tensor targets = {};   ///< [N, C], what is regressed on; undefined: class_targets() of the labels.
  at::Tensor start = {};     ///< [N, C]: the model's output at the start, f0, scaled as wanted; undefined: 0.
};

/// What a fit is asked of.
struct KernelQueries {
  at::Tensor kernel;        ///< [Q, C, N, C]: row a query's output, column a training example's.
  at::Tensor flipped = {};  ///< [N, C, Q, C]: the queries as columns, where the kernel is not symmetric and the
                            ///< solver asks for both directions (`asymmetric`); undefined: the transpose.
  at::Tensor start = {};    ///< [Q, C]: f0 of the queries, where the problem has it.
};

/// [N, C]: -1 and 1 where outputs are 1, of two classes; else one-hot rows.
at::Tensor class_targets(const at::Tensor& labels, std::int64_t outputs);
/// The class that outputs [Q, C] speak for: [Q] int64; of one output the second where it is positive.
at::Tensor predicted_classes(const at::Tensor& outputs);

/// Throws InvalidArgument in one line: a shape or dtype that does not fit; a value that is not finite (NumericalError);
/// labels out of range; labels of one class only.
void check_problem(const KernelProblem& problem, std::string_view solver);
/// Throws InvalidArgument where queries' labels name a class that no training example has: the kernel never saw it, and
/// nothing it says of it can be right. `names` of the classes may be empty.
void check_classes_seen(const at::Tensor& labels, const at::Tensor& query_labels,
                        const std::vector<std::string>& names);

/// How a leave-out was computed.
enum class LeaveOut {
  kClosed,   ///< In closed form, exactly the refit.
  kOneStep,  ///< One Newton step from the fit towards the refit: an approximation.
  kRefit,    ///< By fitting again.
};
std::string_view to_string(LeaveOut how);

/// A fitted kernel model.
class KernelFit {
 public:
  virtual ~KernelFit() = default;
  KernelFit(const KernelFit&) = delete;
  KernelFit& operator=(const KernelFit&) = delete;

  /// f of the queries: [Q, C]. Throws InvalidArgument where a shape does not fit or a start is missing.
  virtual at::Tensor outputs(const KernelQueries& queries) const = 0;
  /// f of the training examples: [N, C].
  at::Tensor own_outputs() const;
  /// a: [N, C].
  virtual const at::Tensor& coefficients() const = 0;

  /// Ways in which leave_out() can be computed, the cheapest exact one first.
  virtual std::vector<LeaveOut> ways() const { return {LeaveOut::kRefit}; }
  /// f of the queries by the fit without the examples of each group (all outputs of each; rows of the data):
  /// [G, Q, C]. The regularisation stays as it was chosen on all. Cost: kClosed and kOneStep of groups of g examples,
  /// (g C)^3 + Q (N C) (g C) multiplications a group; kRefit a fit a group. Throws InvalidArgument for a way that is
  /// none of ways(), or a group that leaves nothing.
  at::Tensor leave_out(const KernelQueries& queries, const std::vector<std::vector<std::int64_t>>& groups,
                       LeaveOut how) const;
  /// The same of every example alone, by the first of ways(): [N, Q, C].
  at::Tensor leave_one_out(const KernelQueries& queries) const;
  /// f of each training example by the fit without it: [N, C]. By the first of ways().
  at::Tensor foretold() const;

  /// N d f_c(x) / d w_i, w_i the weight of example i's loss in the fit, 1 at the fit: [Q, C, N]. By the chain rule the
  /// score of any measurement of f. Removing i is - that / N, to first order. Throws InvalidArgument for a solver that
  /// has none in closed form.
  virtual at::Tensor influence(const KernelQueries& queries) const;
  /// N d loss_i / d w_i: [N]. Never positive where the kernel is positive semi-definite. Large below 0: nothing else
  /// speaks for the example.
  virtual at::Tensor self_influence() const;

  /// What was chosen and how it went, for people and kernel.json: "lambda 0.12, the least of 9 by leave-one-out".
  const std::vector<std::string>& notes() const { return notes_; }
  /// Whether the solver came to its tolerance; what does not iterate always does.
  bool converged() const { return converged_; }
  /// Of the penalty lambda / 2 a' K a; NaN where the solver has none.
  double lambda() const { return lambda_; }
  const KernelProblem& problem() const { return problem_; }

 protected:
  explicit KernelFit(KernelProblem problem);
  /// One group, by one of ways() but kRefit.
  virtual at::Tensor without(const KernelQueries& queries, const std::vector<std::int64_t>& group, LeaveOut how) const;
  /// The fit to part of the problem, with what was chosen for all of it.
  /// `kept` [M] int64: the examples in it.
  virtual std::unique_ptr<KernelFit> refit(KernelProblem part, const at::Tensor& kept) const = 0;
  at::Tensor refit_without(const KernelQueries& queries, const std::vector<std::int64_t>& group) const;
  /// The training examples as queries.
  KernelQueries own_queries() const;

  KernelProblem problem_;
  double lambda_;
  bool converged_ = true;
  std::vector<std::string> notes_;
};

/// A way to learn from a kernel.
class KernelSolver {
 public:
  virtual ~KernelSolver() = default;
  /// Throws what check_problem() throws; InvalidArgument in one line for a kernel, or number of outputs, that the
  /// solver does not take; NumericalError where the system cannot be solved.
  virtual std::unique_ptr<KernelFit> fit(const KernelProblem& problem) const = 0;
  /// Whether it takes labels alone.
  virtual bool classifies() const = 0;
  /// Whether it learns from a kernel that is not symmetric in both directions. Of two classes that takes one logit,
  /// logit_difference() (tangent_kernel.h).
  virtual bool both_directions() const { return false; }
  /// Whether fit() refuses a kernel that is not symmetric.
  virtual bool wants_symmetry() const { return false; }
  /// What a fit of N examples and C outputs holds at its peak beside the kernel, and multiplies.
  virtual double bytes(std::int64_t examples, std::int64_t outputs) const = 0;
  virtual double multiplications(std::int64_t examples, std::int64_t outputs) const = 0;
};

/// Throws InvalidArgument, naming N, C, N C, what the fit takes and the most examples that it could take, where it
/// takes more than `most_bytes` or more than `most_multiplications`: by default 8 GB and about an hour.
void check_solvable(const KernelSolver& solver, std::string_view name, std::int64_t examples, std::int64_t outputs,
                    double most_bytes = 8e9, double most_multiplications = 1e14);

WHENCE_DECLARE_ROOM(KernelSolver)

}  // namespace whence
