#include "whence/evaluate/guessing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "whence/attribution/measurement.h"
#include "whence/attribution/prediction.h"

namespace whence {
namespace {

/// The one output [1, C] for all examples that suits a loss best, of their mean target [C].
at::Tensor best_constant(const at::Tensor& mean, TargetKind wanted) {
  constexpr double kRarest = 1e-6;
  switch (wanted) {
    case TargetKind::kClasses:
      return mean.clamp_min(kRarest).log().unsqueeze(0);
    case TargetKind::kProbabilities:
      return at::logit(mean, kRarest).unsqueeze(0);
    default:
      return mean.unsqueeze(0);
  }
}

}  // namespace

std::optional<BesideGuess> no_better_than_guess(const Stage& stage) {
  const auto& objective = stage.objective;
  const auto& data = objective.data();
  const auto wanted = objective.loss().wants();
  if (objective.inner() != nullptr || !objective.loss().is_of_output() || are_tokens(wanted) ||
      data.head_outputs() == 0) {
    return std::nullopt;
  }
  constexpr std::int64_t kMost = 64;
  const auto n = data.size(), count = std::min(n, kMost);
  const auto sample = data.take(at::linspace(0, static_cast<double>(n - 1), count, at::kDouble).round().to(at::kLong));
  const bool classes = data.target_kind() == TargetKind::kClasses;
  const auto targets = data.targets().cpu();
  const auto mean = classes ? at::bincount(targets, {}, data.outputs()).to(at::kDouble) / static_cast<double>(n)
                            : targets.to(at::kDouble).mean(0);
  if (classes && mean.max().item<double>() == 1) {
    return std::nullopt;  // of one class, which any guess knows
  }
  const auto batch = sample.batch(0, count);
  const auto constant = best_constant(mean, wanted).to(batch.inputs.device()).expand({count, -1});
  const auto guesses = objective.loss().per_example(constant, batch).to(at::kCPU, at::kDouble);
  const auto losses = measure_all(Measurement::kLoss, stage, sample);
  const auto worse = losses - guesses;
  const double error = count > 1 ? worse.std().item<double>() / std::sqrt(static_cast<double>(count)) : INFINITY;
  if (!(worse.mean().item<double>() > 2 * error)) {
    return std::nullopt;
  }
  BesideGuess out{count, losses.mean().item<double>(), guesses.mean().item<double>()};
  if (classes) {
    const auto predictions = predict(stage, sample);
    const auto right = std::count_if(predictions.begin(), predictions.end(),
                                     [](const Prediction& at) { return at.predicted == at.expected; });
    out.accuracy = static_cast<double>(right) / static_cast<double>(count);
    out.most_frequent = mean.max().item<double>();
    if (out.accuracy > (1 + out.most_frequent) / 2) {
      return std::nullopt;  // sure of itself where it errs, and right all the same
    }
  }
  return out;
}

}  // namespace whence
