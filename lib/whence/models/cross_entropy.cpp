#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/described.h"
#include "whence/core/rounding.h"
#include "whence/data/target_values.h"
#include "whence/models/detail/class_targets.h"
#include "whence/models/detail/softmax.h"
#include "whence/models/loss.h"

namespace whence {
namespace {

constexpr Bound kSmoothing{0, 1 - 1e-12, "in [0, 1)"};

struct CrossEntropyOptions {
  double smoothing = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("smoothing", self.smoothing, kSmoothing, "share of each target that is spread evenly over all classes");
  }
};

/// -sum over classes of q log softmax(output), q the target: a class, or a share for each class, of which `smoothing`
/// is spread over all. C. Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016. As q sums to 1, the
/// Hessian in the output is that of a class.
class CrossEntropy : public Loss, public Described {
 public:
  explicit CrossEntropy(CrossEntropyOptions options) : options_(options) {}

  std::string description() const override { return options_text(options_); }
  TargetKind wants() const override { return TargetKind::kClasses; }

  at::Tensor per_example(const at::Tensor& output, const Batch& batch) const override {
    const auto losses = against_targets(output, batch);
    if (options_.smoothing == 0) {
      return losses;
    }
    const auto evenly = at::log_softmax(widened(output), 1).mean(1).neg();
    return losses * (1 - options_.smoothing) + evenly * options_.smoothing;
  }
  at::Tensor hessian_product(const at::Tensor& output, const Batch&, const at::Tensor& u) const override {
    return detail::softmax_hessian_product(output, u);
  }
  at::Tensor hessian_root(const at::Tensor& output, const Batch&) const override {
    return detail::softmax_hessian_root(output);
  }
  /// The drawn class is not smoothed, so that the outer product has the Hessian for its mean.
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch&, const at::Tensor& noise) const override {
    return detail::softmax_sampled_gradient(output, noise);
  }
  std::int64_t noise_width(std::int64_t) const override { return 1; }

 private:
  static at::Tensor against_targets(const at::Tensor& output, const Batch& batch) {
    const auto& targets = batch.targets;
    if (detail::is_classes(targets)) {
      detail::check_classes("cross-entropy", targets, output.size(1));
      return detail::softmax_losses(output, targets);
    }
    if (!targets.is_floating_point() || targets.sizes() != output.sizes()) {
      throw InvalidArgument(fmt::format(
          "cross-entropy: targets of shape [{}] and dtype {}, expected [{}] class numbers (Long) or [{}] shares",
          fmt::join(targets.sizes(), ", "), c10::toString(targets.scalar_type()), output.size(0),
          fmt::join(output.sizes(), ", ")));
    }
    detail::check_values("cross-entropy", batch, TargetKind::kClasses);
    const auto logs = at::log_softmax(widened(output), 1);
    return (logs * targets.to(logs.scalar_type())).sum(1).neg();
  }

  CrossEntropyOptions options_;
};

}  // namespace

WHENCE_METHOD(Loss, cross_entropy, CrossEntropy, CrossEntropyOptions)

}  // namespace whence
