#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

namespace whence {

/// PNG bytes of an image [H, W] or [C, H, W], C being 1 (grey) or 3 (red, green, blue): uint8, or floating in 0 .. 1,
/// values beyond which are clamped. Throws InvalidArgument on any other shape or type, NumericalError where a value is
/// not finite.
std::string encode_png(const at::Tensor& image);

std::string base64(std::string_view bytes);

/// The image as a "data:image/png;base64,…" address.
std::string image_data_uri(const at::Tensor& image);

}  // namespace whence
