#pragma once
#include <cstdint>
#include <functional>

namespace whence {

/// Threads that torch uses inside one operation; 0 means all cores. The tool's --threads. Throws InvalidArgument above
/// four for each core (64 on small machines): more only take memory; and std::system_error where the system gives none.
void set_threads(std::int64_t threads);
std::int64_t threads();

/// Runs body(i) for i in [0, count) on threads() threads, with torch at one thread inside each. The first exception is
/// rethrown after all have stopped; work not yet begun is then skipped. GradMode guards belong inside `body`, and
/// forward-mode differentiation must not be used there. `between` runs on the calling thread now and then, and may
/// throw to stop.
void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body,
                  const std::function<void()>& between = {});

}  // namespace whence
