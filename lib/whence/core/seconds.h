#pragma once
#include <time.h>

#include <chrono>

namespace whence {

using Clock = std::chrono::steady_clock;

/// Wall time.
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// What this thread took of a processor since it began: unlike wall time not more where other processes have it.
inline double thread_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace whence
