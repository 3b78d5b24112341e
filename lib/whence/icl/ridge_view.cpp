#include "whence/icl/ridge_view.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <functional>
#include <limits>

#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/core/parallel.h"
#include "whence/icl/detail/checks.h"
#include "whence/icl/detail/layers.h"

namespace whence {
namespace {

/// (matrix + lambda I)^-1 applied to every row of `rows` [r, n]; matrix [n, n] symmetric.
at::Tensor solve_rows(const at::Tensor& matrix, double lambda, const at::Tensor& rows, std::string_view what) {
  using Map = Eigen::Map<Eigen::MatrixXd>;  // column-major: columns are a tensor's rows
  const auto n = matrix.size(0);
  auto factor = matrix.clone(at::MemoryFormat::Contiguous);
  factor.diagonal().add_(lambda);
  Map map(factor.data_ptr<double>(), n, n);
  const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> cholesky(map);  // in place
  const double condition = cholesky.info() == Eigen::Success ? cholesky.rcond() : 0;
  const double least = std::numeric_limits<double>::epsilon() * static_cast<double>(n);
  if (!(condition >= least)) {  // a NaN is caught too
    throw NumericalError(
        fmt::format("ridge: {} + {} I is not positive definite to rounding (reciprocal condition {:.1e}, expected >= "
                    "{:.1e}); take a "
                    "larger lambda or self-lambda",
                    what, lambda, condition, least));
  }
  auto solution = rows.clone(at::MemoryFormat::Contiguous);
  constexpr std::int64_t kRows = 64;  // fixed, so that no bit depends on the threads
  const auto count = rows.size(0);
  parallel_for((count + kRows - 1) / kRows, [&](std::int64_t block) {
    const auto begin = block * kRows, length = std::min(kRows, count - begin);
    Map part(solution.data_ptr<double>() + begin * n, n, length);
    cholesky.solveInPlace(part);
  });
  return solution;
}

at::Tensor row_products(const at::Tensor& a, const at::Tensor& b) { return (a * b).sum(1); }

/// S = M H^-1 M', which takes targets to the regression's values at the demonstrations.
struct Smoother {
  at::Tensor influence;                                 // row i is H^-1 m_i' or G^-1 e_i
  at::Tensor remainders;                                // 1 - S_ii
  std::function<at::Tensor(const at::Tensor& x)> rest;  // x - S x
};

Smoother dual_smoother(const at::Tensor& kernel, double lambda) {
  const auto identity = at::eye(kernel.size(0), at::kDouble);
  const auto inverse = solve_rows(kernel, lambda, identity, "the demonstrations' kernel");
  return {inverse, inverse.diagonal() * lambda,
          [inverse, lambda](const at::Tensor& x) { return inverse.mm(x).mul_(lambda); }};
}

Smoother primal_smoother(const at::Tensor& features, double lambda) {
  const auto rows = solve_rows(features.t().mm(features), lambda, features, "the features' second moment");
  // at least lambda / (lambda + |m_i|^2), which rounding must not pass
  const auto least = lambda / (row_products(features, features) + lambda);
  return {rows, at::maximum(1 - row_products(features, rows), least),
          [features, rows](const at::Tensor& x) { return x - features.mm(rows.t().mm(x)); }};
}

}  // namespace

RidgeOptions suspecting_ridge_options() { return {.lambda = 5, .kernel = "cosine:center"}; }

RidgeOptions detail_ridge_options() { return {.lambda = 1, .regulariser = true, .kernel = "dot"}; }

RidgeView::RidgeView(Form form, const at::Tensor& x, const at::Tensor& targets, const RidgeOptions& options)
    : targets_(targets) {
  const at::NoGradGuard no_gradient;
  validate(options, "ridge");
  detail::check_values(targets, "targets", {-1, -1}, "[n, C]");
  const bool dual = form == Form::kDual;
  const auto n = targets.size(0);
  detail::check_values(x, dual ? "kernel values" : "features", {n, dual ? n : -1}, dual ? "[n, n]" : "[n, w]");
  const auto smoother = [&](double lambda) { return dual ? dual_smoother(x, lambda) : primal_smoother(x, lambda); };
  const double self_lambda = options.self_lambda > 0 ? options.self_lambda : options.lambda;
  const auto fit = smoother(options.lambda);
  const auto self_fit = self_lambda == options.lambda ? fit : smoother(self_lambda);
  const auto smoothed = [&](const Smoother& s) { return residuals_ - s.rest(residuals_); };

  influence_ = fit.influence;
  remainders_ = fit.remainders;
  leverages_ = 1 - remainders_;
  rest_ = fit.rest;
  residuals_ = rest_(targets_);
  self_ = (1 - self_fit.remainders) * row_products(residuals_, residuals_);
  if (options.regulariser) {  // g_i = -m_i' r_i + (self_lambda / lambda) M' R
    const double ratio = self_lambda / options.lambda;
    const auto cross = row_products(residuals_, smoothed(self_fit));
    self_ += ratio * ratio * cross.sum() - 2 * ratio * cross;
    own_terms_ = row_products(residuals_, smoothed(fit));
  }
}

at::Tensor RidgeView::foretold(const at::Tensor& targets) const {
  const at::NoGradGuard no_gradient;
  return targets - rest_(targets) / remainders_.unsqueeze(1);
}

IclScores RidgeView::score(const at::Tensor& queries, const at::Tensor& targets) const {
  const at::NoGradGuard no_gradient;
  const auto share = queries.mm(influence_.t());  // m_t H^-1 M': what each residual adds to the prediction
  IclScores scores;
  scores.prediction = share.mm(targets_);
  const auto error = scores.prediction - targets;
  const auto alignment = error.mm(residuals_.t());
  scores.test = -share * alignment;
  const auto moved = share / remainders_;
  scores.leave_one_out = moved.square() * row_products(residuals_, residuals_) / 2 - moved * alignment;
  if (own_terms_.defined()) {  // g_i carries lambda beta, which is what all the others' terms add up to
    scores.test -= own_terms_;
    scores.test -= scores.test.sum(1, /*keepdim=*/true);
  }
  return scores;
}

namespace {

/// One layer, with what tells its view of queries.
struct ViewedLayer {
  detail::Layers::Layer layer;
  bool dual;
  RidgeView view;
};

ViewedLayer view_of(const detail::Layers& layers, std::int64_t index, const at::Tensor& targets,
                    const RidgeOptions& options) {
  auto layer = layers.fit(index);
  const auto& [kernel, features] = layer;
  const bool dual = kernel.between || targets.size(0) < features.size(1);
  RidgeView view(dual ? RidgeView::Form::kDual : RidgeView::Form::kPrimal, dual ? kernel(features, features) : features,
                 targets, options);
  return {std::move(layer), dual, std::move(view)};
}

}  // namespace

std::vector<IclScores> ridge_scores_by_layer(const IclTask& task, const RidgeOptions& options) {
  const at::NoGradGuard no_gradient;
  const detail::Layers layers(task, options);
  const auto n = task.demonstrations(), q = task.queries();
  const auto targets = detail::targets_of(task), query_targets = detail::query_targets_of(task);
  std::vector<IclScores> out;
  for (std::int64_t index = 0; index < layers.count(); ++index) {
    const auto viewed = view_of(layers, index, targets, options);
    const auto& view = viewed.view;
    const auto empty = [&](std::int64_t columns) { return at::empty({q, columns}, at::kDouble); };
    const IclScores scores{.test = empty(n),
                           .self = view.self(),
                           .leave_one_out = empty(n),
                           .prediction = empty(targets.size(1)),
                           .foretold = view.foretold(targets)};
    in_chunks(q, 8 * (2 * task.states.size(2) + viewed.layer.features.size(1) + 6 * n),
              [&](std::int64_t begin, std::int64_t length) {
                const auto rows = layers.query_features(index, viewed.layer, begin, length);
                const auto part = view.score(viewed.dual ? viewed.layer.kernel(rows, viewed.layer.features) : rows,
                                             query_targets.narrow(0, begin, length));
                scores.test.narrow(0, begin, length).copy_(part.test);
                scores.leave_one_out.narrow(0, begin, length).copy_(part.leave_one_out);
                scores.prediction.narrow(0, begin, length).copy_(part.prediction);
              });
    out.push_back(scores);
  }
  return out;
}

IclScores sum_of_layers(const std::vector<IclScores>& layers) {
  auto total = layers.front();
  for (std::size_t l = 1; l < layers.size(); ++l) {
    total = {.test = total.test + layers[l].test,
             .self = total.self + layers[l].self,
             .leave_one_out = total.leave_one_out + layers[l].leave_one_out,
             .prediction = total.prediction + layers[l].prediction,
             .foretold = total.foretold + layers[l].foretold};
  }
  return total;
}

IclScores ridge_scores(const IclTask& task, const RidgeOptions& options) {
  return sum_of_layers(ridge_scores_by_layer(task, options));
}

at::Tensor foretold(const IclTask& task, const RidgeOptions& options, const at::Tensor& targets) {
  const at::NoGradGuard no_gradient;
  const detail::Layers layers(task, options);
  const auto own = detail::targets_of(task);
  auto total = at::zeros_like(targets);
  for (std::int64_t index = 0; index < layers.count(); ++index) {
    total += view_of(layers, index, own, options).view.foretold(targets);
  }
  return total;
}

double ridge_loss(const IclTask& task, const IclScores& layer) {
  const at::NoGradGuard no_gradient;
  return (layer.prediction - detail::query_targets_of(task)).square().sum(1).nanmean().item<double>() / 2;
}

}  // namespace whence
