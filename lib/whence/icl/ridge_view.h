#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "whence/core/options.h"
#include "whence/icl/icl_method.h"

namespace whence {

/// The defaults are those whose test scores agreed best with what removal does and told wrong labels apart in prompts
/// of three data sets (tests/bench/icl/README.md).
struct RidgeOptions {
  double lambda = 0.1;
  double self_lambda = 0;
  bool regulariser = false;
  std::string kernel = "cosine";
  std::int64_t projection = 0;
  std::int64_t seed = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("lambda", self.lambda, kPositive,
          "of the ridge regression; added to a sum over demonstrations, not a mean; DETAIL's: 1");
    field(
        "self-lambda", self.self_lambda, kAtLeastZero,
        "in the self scores' curvature; 0: as lambda. DETAIL finds noisy labels with 1e-9, which ranks by the squared "
        "residual");
    field(
        "regulariser", self.regulariser, kAny,
        "true: every example's gradient has lambda beta in it, as DETAIL has it, which counts it n times and can turn "
        "scores upside down");
    field("kernel", self.kernel, AnyText{}, "a spec of icl-kernels; DETAIL's: dot");
    field("projection", self.projection, kAtLeastZero, "dimensions of a random projection of the states; 0: none");
    field("seed", self.seed, kAtLeastZero, "of the projection");
  }
};

/// DETAIL's own: lambda 1, kernel dot, the regulariser's term.
RidgeOptions detail_ridge_options();
/// Those whose self scores found wrong labels best: kernel cosine:center, lambda 5.
RidgeOptions suspecting_ridge_options();
/// The method "ridge". Throws InvalidArgument for an option out of bound.
std::unique_ptr<IclMethod> ridge_method(const RidgeOptions& options);

/// Ridge regression of the demonstrations' targets, one-hot labels or others, on their hidden states in one layer, and
/// its influence scores in closed form. R. Zhou et al., "DETAIL: Task DEmonsTration Attribution for Interpretable
/// In-context Learning", NeurIPS 2024.
///
/// With rows m_i, targets y_i and a query's m_t, y_t, the regression is beta = H^-1 M'Y, H = M'M + lambda I;
/// residuals r_i = y_i - m_i beta; leverages h_i = m_i H^-1 m_i'. Gradients g_i = -m_i' r_i + lambda beta, and for the
/// query g_t = m_t'(m_t beta - y_t) + lambda beta. Then
///   test          <g_t, H^-1 g_i>
///   self          <g_i, H^-1 g_i>, lambda being self_lambda in H and g_i but not in beta
///   leave_one_out |m_t beta_-i - y_t|^2 / 2 - |m_t beta - y_t|^2 / 2, beta_-i being the regression without i, exactly:
///                 beta_-i = beta - H^-1 m_i' r_i / (1 - h_i)
///   prediction    m_t beta
///   foretold      m_i beta_-i
/// Without `regulariser`, gradients have no term lambda beta.
///
/// No gradient is formed: all comes from m_t H^-1 M' and M H^-1 M', which in the dual are k_t G^-1 and I - lambda G^-1
/// with G = M M' + lambda I. Operations, with n demonstrations, w features, q queries: dual 7/3 n^3, primal 3 n w^2 +
/// w^3 / 3, each again where self_lambda differs; then 2 q n w (w = n in the dual). Memory: n^2 or n w, beside the
/// scores.
class RidgeView {
 public:
  enum class Form { kDual, kPrimal };
  /// From the kernel of the demonstrations [n, n], symmetric (dual), or their features [n, w] (primal, which forms w x
  /// w: for n >= w), and what they are regressed on [n, C], all float64 on the CPU. Of the options, neither kernel nor
  /// projection is read. Throws InvalidArgument for an option out of bound or a shape, NumericalError where a value is
  /// not finite or the matrix plus lambda I is not positive definite to rounding.
  RidgeView(Form form, const at::Tensor& x, const at::Tensor& targets, const RidgeOptions& options);

  const at::Tensor& self() const { return self_; }            ///< [n]
  const at::Tensor& residuals() const { return residuals_; }  ///< [n, C]
  const at::Tensor& leverages() const { return leverages_; }  ///< [n]
  /// What the regression of `targets` [n, K] without a demonstration says of it: row i is m_i beta_-i. The kernel stays
  /// as fitted on all.
  at::Tensor foretold(const at::Tensor& targets) const;

  /// Of queries given by their kernel values with the demonstrations [q, n] (dual) or their features [q, w] (primal),
  /// and their targets [q, C], float64: test, leave_one_out and prediction. A query whose target is NaN has NaN for
  /// scores, and a prediction.
  IclScores score(const at::Tensor& queries, const at::Tensor& targets) const;

 private:
  at::Tensor influence_;  // row i is H^-1 m_i' (primal) or G^-1 e_i (dual): queries influence_' = m_t H^-1 M'
  at::Tensor targets_;    // Y
  at::Tensor residuals_, leverages_, self_;
  at::Tensor remainders_;                                      // 1 - h_i
  std::function<at::Tensor(const at::Tensor& targets)> rest_;  // targets less what the regression says of them
  at::Tensor own_terms_;  // <r_i, (M H^-1 M' R)_i>; undefined without the regulariser
};

/// The ridge view of every layer of a task (`states` and `query_states` are needed), projected and in the kernel that
/// the options say; in the dual where n < features or the kernel is no inner product, else in the primal. All
/// results are summed over the layers; `by_layer` keeps them apart. Queries go in blocks of at most 256 MiB of scratch.
///
/// Besides what RidgeView throws: NumericalError, naming the entry, where a state is not finite.
IclScores ridge_scores(const IclTask& task, const RidgeOptions& options);
std::vector<IclScores> ridge_scores_by_layer(const IclTask& task, const RidgeOptions& options);
IclScores sum_of_layers(const std::vector<IclScores>& layers);

/// RidgeView::foretold() of the demonstrations for any targets [n, K], summed over a task's layers. Throws what
/// ridge_scores() throws. Cost: that of the views, and n^2 K a layer.
at::Tensor foretold(const IclTask& task, const RidgeOptions& options, const at::Tensor& targets);

/// How well one layer's regression foretells the queries: the mean of |m_t beta - y_t|^2 / 2 over those whose target is
/// known; NaN where none is.
double ridge_loss(const IclTask& task, const IclScores& layer);

}  // namespace whence
