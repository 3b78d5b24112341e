#include "whence/models/detail/class_targets.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/data/target_values.h"

namespace whence::detail {

bool is_classes(const at::Tensor& targets) { return targets.scalar_type() == at::kLong && targets.dim() == 1; }

void check_classes(std::string_view loss, const at::Tensor& targets, std::int64_t outputs) {
  if (targets.numel() == 0) {
    return;
  }
  const auto low = targets.min().item<std::int64_t>(), high = targets.max().item<std::int64_t>();
  if (low < 0 || high >= outputs) {
    throw InvalidArgument(fmt::format("{}: targets are classes {} .. {}, expected 0 .. {} for {} outputs", loss, low,
                                      high, outputs - 1, outputs));
  }
}

void check_values(std::string_view loss, const Batch& batch, TargetKind wanted) {
  if (const auto fault = target_fault(batch.targets, wanted)) {
    const auto name =
        batch.ids.defined() ? fmt::format("example {}", batch.ids[fault->row].item<std::int64_t>()) : "an example";
    throw InvalidArgument(fmt::format("{}: {} has {}", loss, name, fault->why));
  }
}

}  // namespace whence::detail
