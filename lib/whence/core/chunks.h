#pragma once
#include <algorithm>
#include <cstdint>

namespace whence {

/// Calls body(begin, length) over 0 .. count-1 in chunks that need at most 256 MiB of scratch, or in ones of length 1.
template <class Body>
void in_chunks(std::int64_t count, std::int64_t bytes_each, const Body& body) {
  constexpr std::int64_t kScratchBytes = std::int64_t{1} << 28;
  const auto step = std::max<std::int64_t>(1, kScratchBytes / std::max<std::int64_t>(1, bytes_each));
  for (std::int64_t begin = 0; begin < count; begin += step) {
    body(begin, std::min(step, count - begin));
  }
}

}  // namespace whence
