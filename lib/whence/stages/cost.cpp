#include "whence/stages/cost.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "whence/core/operation_count.h"
#include "whence/core/seconds.h"
#include "whence/core/tensors.h"
#include "whence/curvature/curvature.h"

namespace whence {

namespace {

/// Takes gradients of batches of a stage's data.
class BatchGradients {
 public:
  explicit BatchGradients(const Stage& stage)
      : objective_(stage.objective), theta_(leaves(stage.theta)), parent_(detach(stage.parent)) {}

  /// Of the batch from term `begin`; the terms in it.
  std::int64_t take(std::int64_t begin) const {
    const auto end = std::min(objective_.terms(), begin + objective_.terms_at_once());
    const auto batch = objective_.inner() != nullptr ? objective_.terms_batch(at::arange(begin, end))
                                                     : objective_.data().batch(begin, end);
    gradient(objective_.batch_loss(theta_, parent_, batch), theta_);
    return end - begin;
  }

 private:
  const Objective& objective_;
  TensorList theta_, parent_;
};

double of_all(const Stage& stage, double seconds, std::int64_t seen) {
  return seconds * static_cast<double>(stage.objective.terms()) / static_cast<double>(seen);
}

}  // namespace

double gradient_seconds(const Stage& stage) {
  constexpr std::int64_t kBatches = 3;
  constexpr double kLong = 0.5;  // of a batch: what only the first pass pays is less than that
  const BatchGradients gradients(stage);
  const auto step = stage.objective.terms_at_once();
  double start = thread_seconds();
  auto seen = gradients.take(0);
  if (const double first = thread_seconds() - start; first > kLong) {
    return of_all(stage, first, seen);
  }
  start = thread_seconds();
  seen = 0;
  for (std::int64_t i = 0; i < kBatches && i * step < stage.objective.terms(); ++i) {
    seen += gradients.take(i * step);
  }
  return of_all(stage, thread_seconds() - start, seen);
}

double nominal_gradient_seconds(const Stage& stage) {
  const BatchGradients gradients(stage);
  std::int64_t seen = 0;
  auto count = count_operations([&] { seen = gradients.take(0); });
  constexpr double kUsualBatch = 1024;  // whatever the batches are, which are not to change what is chosen
  const auto terms = static_cast<double>(stage.objective.terms());
  const double whole = terms / static_cast<double>(seen);
  count.multiplications *= whole;
  count.bytes *= whole;
  count.calls *= std::ceil(stage.objective.inner() != nullptr ? terms : terms / kUsualBatch);
  return count.nominal_seconds();
}

namespace {

SystemTraits traits_of(std::string_view curvature, const Stage& stage, Inversion inversion) {
  constexpr std::int64_t kMostOutputs = 64;
  const auto made = create<Curvature>(curvature);
  SystemTraits out{
      .parameters = stage.objective.trained().entries(),
      .eigenvectors = made->factored(),
      .inversion = inversion,
      .point = std::make_shared<CurvaturePoint>(CurvaturePoint{stage.objective, stage.theta, stage.parent}),
      .semidefinite = made->is_semidefinite()};
  if (!made->factored() && made->is_semidefinite()) {
    out.rows = [point = out.point] {
      const auto& data = point->objective.data();
      return data.outputs() <= kMostOutputs && has_rows(*point) ? data.size() * data.outputs() : 0;  // about
    };
  }
  return out;
}

}  // namespace

ProductCount product_count(std::string_view solver, std::string_view curvature, const Stage& stage,
                           Inversion inversion) {
  return create<Solver>(solver)->product_count(traits_of(curvature, stage, inversion));
}

std::string solver_at_work(std::string_view solver, std::string_view curvature, const Stage& stage,
                           Inversion inversion) {
  const auto made = create<Solver>(solver);
  return made->picks() ? made->pick(traits_of(curvature, stage, inversion)) : std::string(solver);
}

double solve_seconds(const ProductCount& products, double queries, double pass) {
  return (products.expected() * queries + products.once) * kPassesAProduct * pass;
}

std::string seconds_text(double seconds) {
  return seconds < 100    ? fmt::format("{:.3g} s", seconds)
         : seconds < 6000 ? fmt::format("{:.0f} min", seconds / 60)
                          : fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace whence
