#pragma once
#include "support/tool.h"

namespace whence::test {

/// Less the line that warns, before anything else, that the second stage's checkpoint was trained otherwise.
inline ToolResult less_stale_warning(ToolResult result) {
  CHECK(result.err.starts_with("whence: warning: stage finetune: its checkpoint "));
  result.err.erase(0, result.err.find('\n') + 1);
  return result;
}

}  // namespace whence::test
