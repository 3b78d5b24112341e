#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/models/detail/class_targets.h"
#include "whence/models/loss.h"

namespace whence {
namespace {

/// [B, 1]: the column of each example's class.
at::Tensor class_columns(const at::Tensor& output, const at::Tensor& targets) {
  if (!detail::is_classes(targets)) {
    throw InvalidArgument(
        fmt::format("cross-entropy: targets of shape [{}] and dtype {}, expected [{}] class numbers (Long)",
                    fmt::join(targets.sizes(), ", "), c10::toString(targets.scalar_type()), output.size(0)));
  }
  detail::check_classes("cross-entropy", targets, output.size(1));
  return targets.unsqueeze(1);
}

/// -log softmax(output)[target]
class CrossEntropy : public Loss {
 public:
  explicit CrossEntropy(const NoOptions&) {}

  TargetKind wants() const override { return TargetKind::kClasses; }

  at::Tensor per_example(const at::Tensor& output, const Batch& batch) const override {
    return at::log_softmax(output, 1).gather(1, class_columns(output, batch.targets)).squeeze(1).neg();
  }

  /// (diag(p) - p p^T) u, p = softmax(output)
  at::Tensor hessian_product(const at::Tensor& output, const Batch&, const at::Tensor& u) const override {
    const auto p = at::softmax(output, 1);
    return p * (u - (p * u).sum(1, /*keepdim=*/true));
  }

  /// Column c is sqrt(p_c) times the gradient of the loss for class c: sqrt(p_c) (p - e_c).
  at::Tensor hessian_root(const at::Tensor& output, const Batch&) const override {
    const auto p = at::softmax(output, 1);
    const auto identity = at::eye(output.size(1), output.options());
    return (p.unsqueeze(2) - identity) * p.sqrt().unsqueeze(1);
  }

  /// The class is the largest of output + Gumbel noise (E. Gumbel 1954).
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch&, const at::Tensor& noise) const override {
    const auto drawn = (output - noise.to(output.options()).log().neg().log()).argmax(1);
    return at::softmax(output, 1) - at::one_hot(drawn, output.size(1)).to(output.options());
  }
};

}  // namespace

WHENCE_METHOD(Loss, cross_entropy, CrossEntropy, NoOptions)

}  // namespace whence
