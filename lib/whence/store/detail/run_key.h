#pragma once

namespace whence::detail {

/// Where the metadata of scores.safetensors names the run that made it.
inline constexpr const char* kRunKey = "run-key";

}  // namespace whence::detail
