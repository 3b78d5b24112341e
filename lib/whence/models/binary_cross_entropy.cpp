#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "whence/core/described.h"
#include "whence/core/rounding.h"
#include "whence/data/target_values.h"
#include "whence/models/detail/class_targets.h"
#include "whence/models/loss.h"

namespace whence {
namespace {

struct BinaryCrossEntropyOptions {
  bool mean = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("mean", self.mean, kAny, "divide an example's loss by the number of its outputs, as BCEWithLogitsLoss does");
  }
};

/// [B, C] like the output: values from 0 to 1 as they are, class numbers as one-hot rows.
at::Tensor event_rows(const at::Tensor& output, const Batch& batch) {
  const auto& targets = batch.targets;
  if (detail::is_classes(targets)) {
    detail::check_classes("binary-cross-entropy", targets, output.size(1));
    return at::arange(output.size(1), targets.options()).eq(targets.unsqueeze(1)).to(output.scalar_type());
  }
  if (targets.sizes() != output.sizes()) {
    throw InvalidArgument(
        fmt::format("binary-cross-entropy: targets of shape [{}] for outputs of shape [{}], expected the same",
                    fmt::join(targets.sizes(), ", "), fmt::join(output.sizes(), ", ")));
  }
  detail::check_values("binary-cross-entropy", batch, TargetKind::kProbabilities);
  return targets.to(output.scalar_type());
}

/// Each output is the logit of an event of its own: -sum of t log p + (1 - t) log(1 - p), p = sigmoid(output).
class BinaryCrossEntropy : public Loss, public Described {
 public:
  explicit BinaryCrossEntropy(BinaryCrossEntropyOptions options) : options_(options) {}

  std::string description() const override { return options_text(options_); }
  TargetKind wants() const override { return TargetKind::kProbabilities; }

  at::Tensor per_example(const at::Tensor& given, const Batch& batch) const override {
    const auto output = widened(given);
    const auto targets = event_rows(output, batch);
    const auto losses = targets * exact_softplus(-output) + (1 - targets) * exact_softplus(output);
    return losses.sum(1) * share(output);
  }
  at::Tensor hessian_product(const at::Tensor& output, const Batch&, const at::Tensor& u) const override {
    return variances(output) * u * share(output);
  }
  at::Tensor hessian_root(const at::Tensor& output, const Batch&) const override {
    return at::diag_embed((variances(output) * share(output)).sqrt());
  }
  /// Each event happens with the probability that the model gives it.
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch&, const at::Tensor& noise) const override {
    const auto z = widened(output), p = at::sigmoid(z);
    const auto happens = noise.to(at::kDouble).lt(p.to(at::kDouble));
    return at::where(happens, -at::sigmoid(-z), p) * std::sqrt(share(output));
  }
  std::int64_t noise_width(std::int64_t outputs) const override { return outputs; }

 private:
  double share(const at::Tensor& output) const { return options_.mean ? 1 / static_cast<double>(output.size(1)) : 1; }
  /// p (1 - p), without the cancellation of 1 - p.
  static at::Tensor variances(const at::Tensor& output) {
    const auto z = widened(output);
    return at::sigmoid(z) * at::sigmoid(-z);
  }

  BinaryCrossEntropyOptions options_;
};

}  // namespace

WHENCE_METHOD(Loss, binary_cross_entropy, BinaryCrossEntropy, BinaryCrossEntropyOptions)

}  // namespace whence
