#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/rounding.h"
#include "whence/models/loss.h"

namespace whence {
namespace {

/// What a program made of its inputs is the loss already: [B, 1].
class ExportedLoss : public Loss {
 public:
  explicit ExportedLoss(const NoOptions&) {}

  TargetKind wants() const override { return TargetKind::kValues; }

  at::Tensor per_example(const at::Tensor& output, const Batch&) const override {
    if (output.dim() != 2 || output.size(1) != 1) {
      throw InvalidArgument(
          fmt::format("loss exported: an output [{}], expected one number an example: torch's losses give them with "
                      "reduction=\"none\"; of predictions the loss is another, cross-entropy say",
                      fmt::join(output.sizes(), ", ")));
    }
    return widened(output).squeeze(1);
  }
  at::Tensor hessian_product(const at::Tensor&, const Batch&, const at::Tensor&) const override { refuse(); }
  at::Tensor hessian_root(const at::Tensor&, const Batch&) const override { refuse(); }
  at::Tensor sampled_gradient(const at::Tensor&, const Batch&, const at::Tensor&) const override { refuse(); }
  std::int64_t noise_width(std::int64_t) const override { return 1; }
  bool is_of_output() const override { return false; }

 private:
  [[noreturn]] static void refuse() {
    throw InvalidArgument(
        "loss exported: the model gives its loss alone, of which there is no Gauss-Newton matrix and no Fisher: use "
        "--curvature hessian or one of the empirical Fisher's");
  }
};

}  // namespace

WHENCE_METHOD(Loss, exported_loss, ExportedLoss, NoOptions)

}  // namespace whence
