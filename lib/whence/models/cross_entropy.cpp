#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/models/detail/class_targets.h"
#include "whence/models/detail/softmax.h"
#include "whence/models/loss.h"

namespace whence {
namespace {

const at::Tensor& checked_classes(const at::Tensor& output, const at::Tensor& targets) {
  if (!detail::is_classes(targets)) {
    throw InvalidArgument(
        fmt::format("cross-entropy: targets of shape [{}] and dtype {}, expected [{}] class numbers (Long)",
                    fmt::join(targets.sizes(), ", "), c10::toString(targets.scalar_type()), output.size(0)));
  }
  detail::check_classes("cross-entropy", targets, output.size(1));
  return targets;
}

/// -log softmax(output)[target]
class CrossEntropy : public Loss {
 public:
  explicit CrossEntropy(const NoOptions&) {}

  TargetKind wants() const override { return TargetKind::kClasses; }

  at::Tensor per_example(const at::Tensor& output, const Batch& batch) const override {
    return detail::softmax_losses(output, checked_classes(output, batch.targets));
  }
  at::Tensor hessian_product(const at::Tensor& output, const Batch&, const at::Tensor& u) const override {
    return detail::softmax_hessian_product(output, u);
  }
  at::Tensor hessian_root(const at::Tensor& output, const Batch&) const override {
    return detail::softmax_hessian_root(output);
  }
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch&, const at::Tensor& noise) const override {
    return detail::softmax_sampled_gradient(output, noise);
  }
  std::int64_t noise_width(std::int64_t) const override { return 1; }
};

}  // namespace

WHENCE_METHOD(Loss, cross_entropy, CrossEntropy, NoOptions)

}  // namespace whence
