#pragma once
#include <cmath>

#include "whence/core/json.h"

namespace whence::cli {

/// What results are written as: an object's keys stay in the order in which they were set.
using Json = nlohmann::ordered_json;

/// A number, or null for what JSON has none for.
inline Json json_number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace whence::cli
