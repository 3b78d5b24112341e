#pragma once
#include <memory>

namespace whence {

/// A pointer to what another owner keeps alive for as long.
template <class T>
std::shared_ptr<const T> borrowed(const T& held) {
  return {std::shared_ptr<void>(), &held};
}

}  // namespace whence
