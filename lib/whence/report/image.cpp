#include "whence/report/image.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <png.h>

#include "whence/core/error.h"
#include "whence/core/tensors.h"

namespace whence {
namespace {

/// [H, W, C] uint8, C being 1 or 3.
at::Tensor pixels(const at::Tensor& image) {
  const auto planes = image.dim() == 2 ? image.unsqueeze(0) : image;
  const bool floating = at::isFloatingType(image.scalar_type());
  if (planes.dim() != 3 || (planes.size(0) != 1 && planes.size(0) != 3) || planes.numel() == 0 ||
      (!floating && image.scalar_type() != at::kByte)) {
    throw InvalidArgument(fmt::format("image: {} [{}], expected uint8 or floating [H, W], [1, H, W] or [3, H, W]",
                                      at::toString(image.scalar_type()), fmt::join(image.sizes(), ", ")));
  }
  auto values = planes.detach().cpu();
  if (floating) {
    check_finite(values, "image");
    values = values.to(at::kDouble).clamp(0, 1).mul(255).round().to(at::kByte);
  }
  return values.permute({1, 2, 0}).contiguous();
}

}  // namespace

std::string encode_png(const at::Tensor& image) {
  const auto data = pixels(image);
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.height = static_cast<png_uint_32>(data.size(0));
  png.width = static_cast<png_uint_32>(data.size(1));
  png.format = data.size(2) == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  if (png_image_write_to_memory(&png, bytes.data(), &size, 0, data.const_data_ptr(), 0, nullptr) == 0) {
    throw InvalidArgument(fmt::format("image [{}]: {}", fmt::join(image.sizes(), ", "), png.message));
  }
  bytes.resize(size);
  return bytes;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto count = std::min<std::size_t>(3, bytes.size() - i);
    unsigned group = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      out += k <= count ? kDigits[group >> (18 - 6 * k) & 63U] : '=';
    }
  }
  return out;
}

std::string image_data_uri(const at::Tensor& image) { return "data:image/png;base64," + base64(encode_png(image)); }

}  // namespace whence
