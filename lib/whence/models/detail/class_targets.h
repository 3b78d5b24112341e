#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

namespace whence::detail {

/// Whether targets are class numbers, [B] int64.
bool is_classes(const at::Tensor& targets);

/// Throws InvalidArgument, naming the loss, unless every class has one of the `outputs` outputs.
void check_classes(std::string_view loss, const at::Tensor& targets, std::int64_t outputs);

}  // namespace whence::detail
