#pragma once
#include <algorithm>
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

}  // namespace whence::test
