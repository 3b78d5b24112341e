#include "whence/attribution/measurement.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

constexpr std::array<std::pair<Measurement, std::string_view>, 4> kMeasurements{
    {{Measurement::kLoss, "loss"},
     {Measurement::kLogProbability, "log-probability"},
     {Measurement::kLogit, "logit"},
     {Measurement::kMargin, "margin"}}};

}  // namespace

std::string_view to_string(Measurement measurement) {
  return kMeasurements[static_cast<std::size_t>(measurement)].second;
}

Measurement parse_measurement(std::string_view word) {
  std::vector<std::string> known;
  for (const auto& [value, name] : kMeasurements) {
    if (name == word) {
      return value;
    }
    known.emplace_back(name);
  }
  throw InvalidArgument(unknown_name("measurement", word, known));
}

double outcome_sign(Measurement measurement) { return measurement == Measurement::kLoss ? -1 : 1; }

std::pair<std::string_view, std::string_view> side_words(Measurement measurement) {
  const bool success = measurement == Measurement::kLoss || measurement == Measurement::kLogProbability;
  return success ? std::pair<std::string_view, std::string_view>{"helpful", "harmful"}
                 : std::pair<std::string_view, std::string_view>{"proponent", "opponent"};
}

namespace {

/// Of events that each have an output of their own: a loss that wants probabilities. [B]
at::Tensor measure_events(Measurement measurement, const at::Tensor& output, const Batch& batch) {
  if (batch.targets.dim() == 1) {  // a class is the event of its output
    const auto chosen = output.gather(1, batch.targets.unsqueeze(1)).squeeze(1);
    return measurement == Measurement::kLogProbability ? -exact_softplus(-chosen) : chosen;
  }
  if (measurement == Measurement::kLogProbability) {  // of all events as they are
    const auto targets = batch.targets.to(output.scalar_type());
    return -(targets * exact_softplus(-output) + (1 - targets) * exact_softplus(output)).sum(1);
  }
  if (output.size(1) == 1) {  // log p - log(1 - p) of what happened; the expected one where that is a probability
    return (measurement == Measurement::kLogit ? output : (2 * batch.targets.to(output.scalar_type()) - 1) * output)
        .squeeze(1);
  }
  throw InvalidArgument(
      fmt::format("measurement = {}, but the queries are {} events, not one: use loss or log-probability",
                  to_string(measurement), output.size(1)));
}

}  // namespace

at::Tensor measure(Measurement measurement, const Loss& loss, const at::Tensor& given, const Batch& batch) {
  const auto output = widened(given);
  if (measurement == Measurement::kLoss) {
    return loss.per_example(output, batch);
  }
  if (loss.wants() == TargetKind::kProbabilities) {
    return measure_events(measurement, output, batch);
  }
  const bool classes = batch.targets.dim() == 1 && !batch.targets.is_floating_point();
  if (!classes) {
    if (measurement == Measurement::kLogit && output.size(1) == 1) {
      return output.squeeze(1);
    }
    if (measurement == Measurement::kLogProbability && loss.wants() == TargetKind::kClasses) {  // its mean over shares
      return (batch.targets.to(output.scalar_type()) * output.log_softmax(1)).sum(1);
    }
    const char* else_use = loss.wants() == TargetKind::kClasses ? " or log-probability"
                           : output.size(1) == 1                ? " or logit"
                                                                : "";
    throw InvalidArgument(fmt::format("measurement = {}, but the queries' targets are values, not classes: use loss{}",
                                      to_string(measurement), else_use));
  }
  if (measurement == Measurement::kLogit) {
    return sum_outputs(batch, output.gather(1, batch.targets.unsqueeze(1)).squeeze(1));
  }
  const auto margin = class_log_odds(output, batch.targets);
  return sum_outputs(batch, measurement == Measurement::kMargin ? margin : -exact_softplus(-margin));
}

PerExample measured(Measurement measurement, const Loss& loss) {
  return [measurement, &loss](const at::Tensor& output, const Batch& batch) {
    return measure(measurement, loss, output, batch);
  };
}

void check_measurable(const Stage& last) {
  if (last.objective.inner() != nullptr) {
    throw InvalidArgument(fmt::format(
        "stage {}: it is primed and hands on a body without a head, so that nothing is measured there, neither of "
        "queries nor of its own examples: ask at a stage behind it",
        last.name));
  }
}

at::Tensor measure_all(Measurement measurement, const Stage& last, const Dataset& queries) {
  check_measurable(last);
  const at::NoGradGuard no_gradient;
  TensorList parts;
  const auto step = last.objective.batch_size();
  for (std::int64_t begin = 0; begin < queries.size(); begin += step) {
    const auto batch = queries.batch(begin, std::min(queries.size(), begin + step));
    const auto output = last.objective.output(last.theta, last.parent, batch);
    parts.push_back(measure(measurement, last.objective.loss(), output, batch).to(at::kCPU, at::kDouble));
  }
  return at::cat(parts);
}

Directions measurement_gradients(Measurement measurement, const Stage& last, const Dataset& queries, std::int64_t begin,
                                 std::int64_t end, const std::vector<std::string>& names) {
  check_measurable(last);
  const DerivativeOrder first(1);
  const auto merged = last.objective.merge(detach(last.theta), detach(last.parent));
  TensorList values = detach(merged.values()), point;
  Directions out;
  for (std::size_t i = 0; i < merged.size(); ++i) {
    if (std::find(names.begin(), names.end(), merged.names()[i]) == names.end()) {
      continue;
    }
    out.add(merged.names()[i],
            at::empty(direction_shape(end - begin, values[i]), algebra_options(values[i].options())));
    point.push_back(values[i].requires_grad_(true));
  }
  for (auto i = begin; i < end; ++i) {
    check_interruption(i - begin, end - begin);
    const auto batch = queries.batch(i, i + 1);
    const auto output = last.objective.model().output(merged.with(values), batch);
    const auto found = gradient(measure(measurement, last.objective.loss(), output, batch).sum(), point);
    for (std::size_t p = 0; p < found.size(); ++p) {
      out.values()[p][i - begin].copy_(found[p]);
    }
  }
  return out;
}

}  // namespace whence
