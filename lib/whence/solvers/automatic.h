#pragma once
#include <string>

#include "whence/solvers/solver.h"

namespace whence {

/// The spec that solver auto picked for an inverse that it prepared; empty where another solver did.
std::string picked_solver(const Inverse& inverse);

}  // namespace whence
