#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "whence/core/progress.h"
#include "whence/data/dataset.h"
#include "whence/models/loss.h"

namespace whence {

/// A fine-tune as its kernel has it: the model linear in what it trains, trained to its end by the stage's own loss,
///
///   f(x) = f_0(x) + sum_j K(x, x_j) a_j,   a_j = -w_j grad loss_j(f(x_j)) / (N ridge),   w_j = 1,
///
/// which for a symmetric K minimises (1/N) sum_j w_j loss_j + ridge/2 |theta - theta_0|^2 over the linearised model
/// (kernel ridge regression of a squared error, kernel logistic regression of a cross-entropy). For K(x, x_j) = <grad
/// f(x), sign grad f(x_j)>, the kernel of early Adam, it is where the sign's dynamics come to rest (S. Malladi et al.,
/// ICML 2023). Its influence functions and its leave-one-outs are closed forms of K alone: formulas.md 4 and 3.
class RegimeFit {
 public:
  /// `gram` [N C, N C] float64 on the CPU: row an output of an example, column what it learns from. `start` [N, C] f_0
  /// of the examples. `data`: their targets. Newton's method with a line search; throws NumericalError where it does
  /// not come to rest. Cost: one factorisation of an N C matrix a step, about ten steps; one step for squared errors.
  /// Memory: four such matrices.
  RegimeFit(at::Tensor gram, at::Tensor start, const Dataset& data, const Loss& loss, double ridge);

  double ridge() const { return ridge_; }
  std::int64_t examples() const { return start_.size(0); }
  /// f at the examples: [N, C].
  at::Tensor outputs() const;
  /// a: [N, C].
  const at::Tensor& coefficients() const { return coefficients_; }
  /// f at M other places, of whose outputs K(x, x_j) is `rows` [M C, N C] and f_0 `start` [M, C]: [M, C].
  at::Tensor predict(const at::Tensor& rows, const at::Tensor& start) const;

  /// d f / d w_j of those places, exactly: [M, C, N].
  at::Tensor weight_derivatives(const at::Tensor& rows) const;
  /// What of <slopes, f(x)>, `slopes` [M, C], goes through the fit to f_0 of the examples: its derivative in them is
  /// [M, N, C], beside that in f_0 of the places themselves, which is `slopes`.
  at::Tensor pull_back(const at::Tensor& rows, const at::Tensor& slopes) const;
  /// a with example i left out (w_i = 0, N as it is), for every i: [N, N C]; row i is the fit refitted. Exact: one
  /// product with a matrix of N C where the loss is quadratic, else repeated until it is at rest, and where it does not
  /// come to rest so a fit of the others. Throws NumericalError where that does not either.
  at::Tensor leave_one_out(const Progress& progress = {}) const;
  /// f at those places with example i left out: [N, M, C], of what leave_one_out() gave.
  at::Tensor predict_without(const at::Tensor& left_out, const at::Tensor& rows, const at::Tensor& start) const;

 private:
  struct Slopes;  // of the losses in the outputs
  Slopes slopes(const at::Tensor& outputs) const;
  at::Tensor residual(const at::Tensor& coefficients, const at::Tensor& gradient) const;

  at::Tensor refitted_without(std::int64_t example) const;

  at::Tensor gram_, start_;
  Dataset data_;
  Batch batch_;
  const Loss& loss_;
  double ridge_, scale_;  // N ridge
  at::Tensor coefficients_, gradient_;
  at::Tensor hessian_;  // [N, C, C]
  at::Tensor inverse_;  // of I + W K / (N ridge) at the fit
};

/// The ridge of a grid, in steps of a half decade, under which the fit comes nearest to outputs [N, C] that the
/// examples really have at the end: what the fine-tune's own stopping amounts to. The grid is 1e-6 to 1e2 times the
/// mean eigenvalue of `gram` / N. Cost: a fit each, in NumericalErrors of which the others decide.
double nearest_ridge(const at::Tensor& gram, const at::Tensor& start, const Dataset& data, const Loss& loss,
                     const at::Tensor& end, const Progress& progress = {});

}  // namespace whence
