#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "whence/core/rounding.h"
#include "whence/models/detail/class_targets.h"
#include "whence/models/loss.h"

namespace whence {
namespace {

/// [B, C] like the output: values as they are, class numbers as one-hot rows.
at::Tensor target_rows(const at::Tensor& output, const at::Tensor& targets) {
  if (detail::is_classes(targets)) {
    detail::check_classes("squared-error", targets, output.size(1));
    return at::arange(output.size(1), targets.options()).eq(targets.unsqueeze(1)).to(output.scalar_type());
  }
  if (targets.sizes() != output.sizes()) {
    throw InvalidArgument(
        fmt::format("squared-error: targets of shape [{}] for outputs of shape [{}], expected the same",
                    fmt::join(targets.sizes(), ", "), fmt::join(output.sizes(), ", ")));
  }
  return targets.to(output.scalar_type());
}

/// |output - target|^2 / 2
class SquaredError : public Loss {
 public:
  explicit SquaredError(const NoOptions&) {}

  TargetKind wants() const override { return TargetKind::kValues; }

  at::Tensor per_example(const at::Tensor& given, const Batch& batch) const override {
    const auto output = widened(given);
    return (output - target_rows(output, batch.targets)).square().sum(1) / 2;
  }

  at::Tensor hessian_product(const at::Tensor&, const Batch&, const at::Tensor& u) const override { return u; }

  at::Tensor hessian_root(const at::Tensor& output, const Batch&) const override {
    return at::eye(output.size(1), algebra_options(output.options()))
        .expand({output.size(0), output.size(1), output.size(1)});
  }

  /// A target is the output plus a standard normal number, as half the squared norm has it.
  at::Tensor sampled_gradient(const at::Tensor& output, const Batch&, const at::Tensor& noise) const override {
    return at::erfinv(2 * noise - 1).mul_(std::sqrt(2.0)).to(algebra_options(output.options()));
  }
  std::int64_t noise_width(std::int64_t outputs) const override { return outputs; }
};

}  // namespace

WHENCE_METHOD(Loss, squared_error, SquaredError, NoOptions)

}  // namespace whence
