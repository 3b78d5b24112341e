#include "whence/attribution/detail/projection.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace whence::detail {

std::int64_t Projection::rows_at_once() const {
  constexpr std::int64_t kBytes = std::int64_t{1} << 28;
  const auto row_bytes = layout_.entries() * static_cast<std::int64_t>(layout_.values().front().element_size());
  return std::clamp<std::int64_t>(kBytes / row_bytes, 1, dimension_);
}

Directions Projection::rows(std::int64_t begin, std::int64_t count) const {
  const auto options = layout_.values().front().options();
  auto block = at::empty({count, layout_.entries()}, options);
  for (std::int64_t i = 0; i < count; ++i) {
    auto draws = random_.stream(fmt::format("row {}", begin + i));
    block[i].copy_(draws.normal({layout_.entries()}).div_(std::sqrt(static_cast<double>(dimension_))));
  }
  return directions_of(block, layout_);
}

}  // namespace whence::detail
