#pragma once
#include <string>

#include "whence/core/json.h"

namespace whence::cli {

/// What run.json's entry of a stage says of its solves, for terminal and page alike: "20 solves, largest relative
/// residual 9.7e-07", "20 approximate solves, largest relative residual 3.1e-01 of gauss-newton (4 measured)". A
/// residual that is only that of a curvature's own factors says so.
std::string solves_text(const JsonView& stage);

}  // namespace whence::cli
