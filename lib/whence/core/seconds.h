#pragma once
#include <chrono>

namespace whence {

using Clock = std::chrono::steady_clock;

/// Wall time.
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace whence
