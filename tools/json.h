#pragma once
#include "whence/core/json.h"

namespace whence::cli {

/// What results are written as: an object's keys stay in the order in which they were set.
using Json = nlohmann::ordered_json;

}  // namespace whence::cli
