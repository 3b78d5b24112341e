#include "whence/attribution/prediction.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/attribution/measurement.h"
#include "whence/core/progress.h"

namespace whence {
namespace {

/// What an output says of each class.
at::Tensor probabilities_of(const at::Tensor& output, const Loss& loss) {
  return loss.wants() == TargetKind::kProbabilities ? output.sigmoid() : output.softmax(1);
}

void predict_classes(const at::Tensor& output, const Batch& batch, const Loss& loss,
                     const std::vector<std::string>& classes, std::vector<Prediction>& out) {
  const auto probabilities = probabilities_of(output, loss).to(at::kCPU, at::kDouble);
  const auto chosen = probabilities.argmax(1);
  const auto targets = batch.targets.cpu();
  for (std::int64_t i = 0; i < probabilities.size(0); ++i) {
    const auto predicted = chosen[i].item<std::int64_t>(), expected = targets[i].item<std::int64_t>();
    out.push_back({.predicted = classes.at(static_cast<std::size_t>(predicted)),
                   .expected = classes.at(static_cast<std::size_t>(expected)),
                   .probability = probabilities[i][predicted].item<double>(),
                   .expected_probability = probabilities[i][expected].item<double>()});
  }
}

std::string values_text(const at::Tensor& row) {
  std::string text;
  for (std::int64_t i = 0; i < row.numel(); ++i) {
    text += fmt::format("{}{:.4g}", i == 0 ? "" : ", ", row[i].item<double>());
  }
  return text;
}

/// Where the values are probabilities, what the model gives in their place.
void predict_values(const at::Tensor& output, const Batch& batch, const Loss& loss, std::vector<Prediction>& out) {
  const auto said = loss.wants() == TargetKind::kValues ? output : probabilities_of(output, loss);
  const auto found = said.flatten(1).to(at::kCPU, at::kDouble),
             wanted = batch.targets.flatten(1).to(at::kCPU, at::kDouble);
  for (std::int64_t i = 0; i < found.size(0); ++i) {
    out.push_back({.predicted = values_text(found[i]), .expected = values_text(wanted[i])});
  }
}

void predict_tokens(const at::Tensor& output, const Batch& batch, std::vector<Prediction>& out) {
  const auto target = batch.targets.unsqueeze(1);
  const auto logs = (output.gather(1, target).squeeze(1) - output.logsumexp(1)).to(at::kDouble);
  const auto sums = sum_outputs(batch, logs).cpu();
  const auto hits = sum_outputs(batch, output.argmax(1).eq(batch.targets).to(at::kDouble)).cpu();
  const auto counts = sum_outputs(batch, at::ones_like(logs)).cpu();
  for (std::int64_t i = 0; i < sums.size(0); ++i) {
    const double count = counts[i].item<double>();
    out.push_back({.tokens = std::llround(count),
                   .first_choices = std::llround(hits[i].item<double>()),
                   .perplexity = count > 0 ? std::exp(-sums[i].item<double>() / count) : Prediction::kAbsent});
  }
}

}  // namespace

std::vector<Prediction> predict(const Stage& last, const Dataset& queries) {
  check_measurable(last);
  if (!last.objective.loss().is_of_output()) {
    return {};
  }
  const at::NoGradGuard no_gradient;
  std::vector<Prediction> out;
  const auto step = last.objective.batch_size();
  for (std::int64_t begin = 0; begin < queries.size(); begin += step) {
    check_interruption();
    const auto batch = queries.batch(begin, std::min(queries.size(), begin + step));
    const auto output = last.objective.output(last.theta, last.parent, batch);
    if (batch.predicts_tokens()) {
      predict_tokens(output, batch, out);
    } else if (queries.target_kind() == TargetKind::kClasses) {
      predict_classes(output, batch, last.objective.loss(), queries.classes(), out);
    } else {
      predict_values(output, batch, last.objective.loss(), out);
    }
  }
  return out;
}

}  // namespace whence
