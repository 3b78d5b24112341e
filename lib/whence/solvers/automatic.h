#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "whence/solvers/solver.h"

namespace whence {

/// The spec that solver auto picked for an inverse that it prepared; empty where another solver did.
std::string picked_solver(const Inverse& inverse);

/// What auto picks by size alone, for a curvature that has no eigenvectors of its own and, where `rows` > 0, a root of
/// so many rows: "direct", "woodbury" or "lanczos"; empty: conjugate gradients.
std::string_view picked_by_size(std::int64_t parameters, std::int64_t rows, Inversion inversion);

}  // namespace whence
