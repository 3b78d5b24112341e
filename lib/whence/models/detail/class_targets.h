#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

#include "whence/data/batch.h"
#include "whence/data/dataset.h"

namespace whence::detail {

/// Whether targets are class numbers, [B] int64.
bool is_classes(const at::Tensor& targets);

/// Throws InvalidArgument, naming the loss, unless every class has one of the `outputs` outputs.
void check_classes(std::string_view loss, const at::Tensor& targets, std::int64_t outputs);

/// Throws InvalidArgument, naming the loss and the example, where its values are not what a loss that wants `wanted`
/// compares with (target_fault()).
void check_values(std::string_view loss, const Batch& batch, TargetKind wanted);

}  // namespace whence::detail
