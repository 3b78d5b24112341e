#include "whence/evaluate/retraining.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <mutex>

#include "whence/core/parallel.h"

namespace whence {
namespace {

/// Where the chain's last stage ends when `stage` is trained with `weights`, and how well its trainings converged.
struct Outcome {
  Stage last;
  double gradient_norm = 0;
  std::int64_t unconverged = 0;
};

Outcome retrain_once(const Chain& chain, std::size_t stage, const at::Tensor& weights, const Optimizer* optimizer,
                     const Random& random, const Progress& progress = {}) {
  Outcome out{chain[stage]};
  TensorList body = chain[stage].parent;
  for (auto k = stage; k < chain.size(); ++k) {
    out.last = chain[k];
    auto& current = out.last;
    current.parent = body;
    const auto objective = k == stage ? current.objective.with_weights(weights) : current.objective;
    TrainingState state{clone(current.theta), 0, {}};
    const auto& minimiser = optimizer != nullptr ? *optimizer : *current.optimizer;
    const auto summary = minimiser.minimise(objective, body, state, random, progress);
    current.theta = detach(state.theta);
    out.gradient_norm = std::max(out.gradient_norm, summary.gradient_norm);
    out.unconverged += summary.converged ? 0 : 1;
    body = current.handed_on().values();
  }
  return out;
}

}  // namespace

Retraining retrain(const Chain& chain, std::size_t stage, const at::Tensor& weights, const Dataset& queries,
                   Measurement measurement, const Optimizer* optimizer, const Random& random,
                   const Progress& progress) {
  const auto count = weights.size(0);
  Retraining out;
  out.measurements = at::empty({count, queries.size()}, at::kDouble);
  std::mutex mutex;
  std::atomic<std::int64_t> done{0};
  const auto announce = [&] { report(progress, {"retrain " + chain[stage].name, done.load(), count, ""}); };
  announce();
  parallel_for(
      count,
      [&](std::int64_t i) {
        const auto outcome = retrain_once(chain, stage, weights[i], optimizer, random);
        const auto measured = measure_all(measurement, outcome.last, queries);
        const std::lock_guard<std::mutex> lock(mutex);
        out.measurements[i].copy_(measured);
        out.largest_gradient_norm = std::max(out.largest_gradient_norm, outcome.gradient_norm);
        out.unconverged += outcome.unconverged;
        ++done;
      },
      announce);
  check_finite(out.measurements, "a retrained measurement");
  return out;
}

RetrainingTime time_retraining(const Chain& chain, std::size_t stage, const at::Tensor& weights,
                               const Optimizer* optimizer, const Random& random, double limit) {
  using Clock = std::chrono::steady_clock;
  struct CutOff {};
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const auto start = Clock::now();
  auto begun = start;  // of the stage in training
  auto k = stage;
  std::int64_t done = 0;
  double left = 0;
  const auto watch = [&](const ProgressEvent& event) {
    check_interruption();
    if (event.done < done) {
      begun = Clock::now();
      ++k;
    }
    done = event.done;
    if (seconds_since(start) > limit && done > 0) {
      left = seconds_since(begun) * static_cast<double>(event.total - done) / static_cast<double>(done);
      throw CutOff();
    }
  };
  try {
    retrain_once(chain, stage, weights, optimizer, random, watch);
  } catch (const CutOff&) {
    const double spent = seconds_since(start);
    return {spent, k + 1 == chain.size() ? spent + left : std::numeric_limits<double>::quiet_NaN()};
  }
  const double spent = seconds_since(start);
  return {spent, spent};
}

at::Tensor rows_across_scores(const at::Tensor& scores, std::int64_t count) {
  const auto n = scores.size(1);
  if (count >= n) {
    return at::arange(n);
  }
  const auto order = scores.to(at::kDouble).mean(0).argsort(/*stable=*/true, 0, /*descending=*/false);
  const auto places = at::linspace(0, static_cast<double>(n - 1), count, at::kDouble).round().to(at::kLong);
  return order.index_select(0, places);
}

at::Tensor leave_one_out_weights(const at::Tensor& rows, std::int64_t examples) {
  auto weights = at::ones({rows.size(0), examples}, at::kDouble);
  weights.scatter_(1, rows.unsqueeze(1), 0.0);
  return weights;
}

at::Tensor subset_weights(std::int64_t subsets, std::int64_t examples, double fraction, Random random) {
  const auto kept =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(fraction * static_cast<double>(examples)), 1, examples);
  auto weights = at::zeros({subsets, examples}, at::kDouble);
  for (std::int64_t m = 0; m < subsets; ++m) {
    const auto rows = random.permutation(examples).narrow(0, 0, kept);
    weights[m].index_fill_(0, rows, static_cast<double>(examples) / static_cast<double>(kept));
  }
  return weights;
}

}  // namespace whence
