#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace whence::test {

/// The cases of a kind that a build under sanitizers looks at, where each takes ten times as long: the first few. The
/// optimised build looks at all of them.
template <class Case>
std::span<const Case> some(const std::vector<Case>& all, [[maybe_unused]] std::size_t most = 3) {
#ifdef __SANITIZE_ADDRESS__
  return {all.data(), std::min(most, all.size())};
#else
  return {all.data(), all.size()};
#endif
}

/// Whether a build looks at the i-th of many combinations: one in so many under sanitizers, all of them else.
inline bool looks_at([[maybe_unused]] std::int64_t i, [[maybe_unused]] std::int64_t one_in) {
#ifdef __SANITIZE_ADDRESS__
  return i % one_in == 0;
#else
  return true;
#endif
}

}  // namespace whence::test
