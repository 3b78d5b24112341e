#include "whence/kernels/tangent_kernel.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/models/ops.h"

namespace whence {

KernelOutputs model_outputs() {
  return [](const at::Tensor& output, const Batch& batch) {
    if (batch.predicts_tokens()) {
      throw InvalidArgument(
          fmt::format("kernel: tokens are predicted at every place of a text, {} outputs each, expected a number of "
                      "outputs an example: give the data label-words, or a head",
                      output.size(1)));
    }
    return output;
  };
}

KernelOutputs logit_difference() {
  return [](const at::Tensor& output, const Batch& batch) {
    if (batch.predicts_tokens() || output.size(1) != 2) {
      throw InvalidArgument(
          fmt::format("kernel: the difference of two logits was asked for, of outputs of {} numbers{}", output.size(1),
                      batch.predicts_tokens() ? " at every place of a text" : ""));
    }
    return output.narrow(1, 1, 1) - output.narrow(1, 0, 1);
  };
}

KernelOutputs example_losses(const Loss& loss) {
  return [&loss](const at::Tensor& output, const Batch& batch) { return loss.per_example(output, batch).unsqueeze(1); };
}

at::Tensor outputs_at(const KernelPoint& point, const Dataset& data) {
  const at::NoGradGuard no_gradient;
  const auto merged = point.objective.merge(detach(point.theta), detach(point.parent));
  TensorList parts;
  const auto step = point.objective.batch_size();
  for (std::int64_t begin = 0; begin < data.size(); begin += step) {
    check_interruption(begin, data.size());
    const auto batch = data.batch(begin, std::min(data.size(), begin + step));
    parts.push_back(point.outputs(point.objective.model().output(merged, batch), batch).to(at::kCPU, at::kDouble));
  }
  auto out = at::cat(parts);
  check_finite(out, "the model's outputs");
  return out;
}

}  // namespace whence
