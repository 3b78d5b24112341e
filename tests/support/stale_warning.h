#pragma once
#include "support/tool.h"

namespace whence::test {

/// Less the line that warns, before anything else, that a stage's checkpoint was trained otherwise.
inline ToolResult less_stale_warning(ToolResult result) {
  CHECK(result.err.starts_with("whence: warning: stage "));
  CHECK(result.err.find(" was trained otherwise (") < result.err.find('\n'));
  result.err.erase(0, result.err.find('\n') + 1);
  return result;
}

}  // namespace whence::test
