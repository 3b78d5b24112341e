#include "whence/curvature/curvature.h"

#include <array>

namespace whence {

std::string_view to_string(CurvatureFamily family) {
  constexpr std::array<std::string_view, 3> kNames{"hessian", "gauss-newton", "empirical-fisher"};
  return kNames[static_cast<std::size_t>(family)];
}

}  // namespace whence
