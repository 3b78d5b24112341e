#include "whence/evaluate/retraining.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>

#include "whence/core/parallel.h"
#include "whence/core/seconds.h"
#include "whence/core/tensors.h"
#include "whence/models/dense_layers.h"
#include "whence/training/stacked.h"

namespace whence {
namespace {

/// Where the chain's last stage ends when `stage` is trained with `weights`, and how well its trainings converged.
struct Outcome {
  Stage last;
  double gradient_norm = 0;
  std::int64_t unconverged = 0;
};

Outcome retrain_once(const Chain& chain, std::size_t stage, const at::Tensor& weights, const Optimizer* optimizer,
                     const Random& random, const BeginStage& begin, const Progress& progress) {
  Outcome out{chain[stage]};
  Chain trained(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(stage));
  for (auto k = stage; k < chain.size(); ++k) {
    auto current = begin ? begin(k, trained) : chain[k];
    if (!begin && k > stage) {
      current.parent = trained.back().handed_on().values();
    }
    const auto objective = k == stage ? current.objective.with_weights(weights) : current.objective;
    TrainingState state{clone(current.theta), 0, {}};
    const auto& minimiser = optimizer != nullptr ? *optimizer : *current.optimizer;
    const auto draws = begin ? random.stream("training of stage " + current.name) : random;
    const auto summary = minimiser.minimise(objective, current.parent, state, draws, progress);
    current.theta = detach(state.theta);
    out.gradient_norm = std::max(out.gradient_norm, summary.gradient_norm);
    out.unconverged += summary.converged ? 0 : 1;
    trained.push_back(std::move(current));
  }
  out.last = std::move(trained.back());
  return out;
}

/// How many of so many trainings of the chain from `stage` on a thread makes side by side as one: 1 where they cannot,
/// or where a model alone keeps a core busy.
std::int64_t together(const Chain& chain, std::size_t stage, const Optimizer* optimizer, std::int64_t trainings) {
  constexpr std::int64_t kMost = 64, kNumbers = 1 << 18;  // of an Adam step, measured
  const auto& last = chain.back();
  const auto& objective = last.objective;
  const auto* stacked = dynamic_cast<const StackedTraining*>(optimizer != nullptr ? optimizer : last.optimizer.get());
  const bool can = stage + 1 == chain.size() && stacked != nullptr && stacked->stacks() && !objective.inner() &&
                   dynamic_cast<const DenseLayers*>(&objective.model()) != nullptr &&
                   objective.merge(last.theta, last.parent).additions() == nullptr;
  const auto a_thread = (trainings + threads() - 1) / threads();
  return can ? std::clamp<std::int64_t>(std::min(a_thread, kNumbers / count_entries(last.theta)), 1, kMost) : 1;
}

/// retrain_once() of the last stage with each of `weights` [K, N], side by side.
std::vector<Outcome> retrain_together(const Chain& chain, std::size_t stage, const at::Tensor& weights,
                                      const Optimizer* optimizer, const Random& random, const BeginStage& begin,
                                      const Progress& progress) {
  const Chain before(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(stage));
  const auto current = begin ? begin(stage, before) : chain[stage];
  const auto& minimiser = dynamic_cast<const StackedTraining&>(optimizer != nullptr ? *optimizer : *current.optimizer);
  const auto draws = begin ? random.stream("training of stage " + current.name) : random;
  const auto stacks =
      minimiser.minimise_all(current.objective, current.parent, current.theta, weights, draws, progress);
  std::vector<Outcome> out;
  for (std::int64_t k = 0; k < weights.size(0); ++k) {
    out.push_back({current, 0, 1});  // by steps, which meet no tolerance
    auto& theta = out.back().last.theta;
    for (std::size_t i = 0; i < theta.size(); ++i) {
      theta[i] = stacks[i][k].clone();
    }
    TensorList gradient;
    current.objective.with_weights(weights[k]).value(theta, current.parent, &gradient);
    out.back().gradient_norm = std::sqrt(exact_dot(gradient, gradient));
  }
  return out;
}

/// retrain_once() with each of `weights` [K, N], as many as together() says.
std::vector<Outcome> train_all(const Chain& chain, std::size_t stage, const at::Tensor& weights,
                               const Optimizer* optimizer, const Random& random, const BeginStage& begin,
                               const Progress& progress) {
  return weights.size(0) == 1
             ? std::vector<Outcome>{retrain_once(chain, stage, weights[0], optimizer, random, begin, progress)}
             : retrain_together(chain, stage, weights, optimizer, random, begin, progress);
}

}  // namespace

Retraining retrain(const Chain& chain, std::size_t stage, const at::Tensor& weights, const Dataset& queries,
                   Measurement measurement, const Optimizer* optimizer, const Random& random, const Progress& progress,
                   const BeginStage& begin, const RetrainingCache& cache) {
  const auto count = weights.size(0);
  Retraining out;
  out.measurements = at::empty({count, queries.size()}, at::kDouble);
  const auto take = [&](std::int64_t i, const RetrainingOutcome& outcome) {
    out.measurements[i].copy_(outcome.measurements);
    out.largest_gradient_norm = std::max(out.largest_gradient_norm, outcome.gradient_norm);
    out.unconverged += outcome.unconverged;
  };
  std::vector<std::int64_t> missing;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto kept = cache.load ? cache.load(weights[i]) : std::nullopt;
    kept ? take(i, *kept) : missing.push_back(i);
  }
  std::mutex mutex;
  std::atomic<std::int64_t> done{count - static_cast<std::int64_t>(missing.size())};
  const auto announce = [&] { report(progress, {"retrain " + chain[stage].name, done.load(), count, ""}); };
  announce();
  const auto left = static_cast<std::int64_t>(missing.size());
  const auto most = together(chain, stage, optimizer, left);
  parallel_for((left + most - 1) / most,
               [&](std::int64_t part) {
                 const std::vector<std::int64_t> rows(missing.begin() + part * most,
                                                      missing.begin() + std::min(left, (part + 1) * most));
                 const auto trained = train_all(chain, stage, weights.index_select(0, at::tensor(rows)), optimizer,
                                                random, begin, [](const ProgressEvent&) { check_interruption(); });
                 for (std::size_t k = 0; k < rows.size(); ++k) {
                   const RetrainingOutcome outcome{measure_all(measurement, trained[k].last, queries),
                                                   trained[k].gradient_norm, trained[k].unconverged};
                   check_finite(outcome.measurements, "a retrained measurement");
                   const std::lock_guard<std::mutex> lock(mutex);
                   take(rows[k], outcome);
                   if (cache.save) {
                     cache.save(weights[rows[k]], outcome);
                   }
                   ++done;
                 }
               },
               announce);
  return out;
}

RetrainingTime time_retraining(const Chain& chain, std::size_t stage, const at::Tensor& weights, std::int64_t trainings,
                               const Optimizer* optimizer, const Random& random, double limit,
                               const BeginStage& begin) {
  struct CutOff {};
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
  const auto models = together(chain, stage, optimizer, trainings);
  try {
    train_all(chain, stage, weights.expand({models, -1}), optimizer, random, begin, watch);
  } catch (const CutOff&) {
    const double spent = seconds_since(start), each = static_cast<double>(models);
    return {spent / each, k + 1 == chain.size() ? (spent + left) / each : std::numeric_limits<double>::quiet_NaN()};
  }
  const double spent = seconds_since(start) / static_cast<double>(models);
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

at::Tensor removal_weights(const at::Tensor& rows, std::int64_t examples) {
  const auto kept = static_cast<double>(examples - rows.numel());
  return at::full({1, examples}, static_cast<double>(examples) / kept, at::kDouble).index_fill(1, rows, 0.0);
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
