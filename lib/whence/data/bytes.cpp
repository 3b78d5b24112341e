#include "whence/data/detail/bytes.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace whence::detail {

static_assert(std::endian::native == std::endian::little, "files are mapped as they are stored: little-endian");

std::optional<std::int64_t> checked_bytes(at::IntArrayRef shape, std::int64_t element_size) {
  std::int64_t product = element_size;
  bool empty = false;
  for (const auto size : shape) {
    empty = empty || size == 0;
    if (__builtin_mul_overflow(product, std::max<std::int64_t>(size, 1), &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

at::Tensor mapped_tensor(std::shared_ptr<const FileBytes> file, std::size_t offset, at::IntArrayRef shape,
                         at::ScalarType dtype) {
  const auto element_size = static_cast<std::int64_t>(c10::elementSize(dtype));
  const auto bytes = static_cast<std::size_t>(checked_bytes(shape, element_size).value());
  const auto* data = file->bytes().data() + offset;
  if (bytes != 0 && reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(element_size) == 0) {
    return at::from_blob(
        const_cast<std::byte*>(data), shape, [file](void*) {}, dtype);
  }
  auto copy = at::empty(shape, dtype);
  if (bytes != 0) {
    std::memcpy(copy.data_ptr(), data, bytes);
  }
  return copy;
}

std::int64_t first_nonfinite_row(const at::Tensor& x, std::optional<at::ScalarType> dtype) {
  if (!x.is_floating_point() || x.numel() == 0) {
    return -1;
  }
  constexpr std::int64_t kEntries = 1 << 20;  // looked at in one go, so that memory does not grow with the data
  const auto count = x.size(0);
  const auto step = std::max<std::int64_t>(1, kEntries / (x.numel() / count));
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const auto rows = std::min(step, count - begin);
    const auto finite =
        at::isfinite(x.narrow(0, begin, rows).to(dtype.value_or(x.scalar_type()))).reshape({rows, -1}).all(1);
    if (!finite.all().item<bool>()) {
      return begin + finite.logical_not().nonzero()[0][0].item<std::int64_t>();
    }
  }
  return -1;
}

}  // namespace whence::detail
