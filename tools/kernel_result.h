#pragma once
#include <string>

#include "whence/core/json.h"
#include "whence/report/html.h"

namespace whence::cli {

// What kernel.json says, in words.

/// For the terminal: what was made of what, each test with its numbers, last the verdict.
std::string kernel_text(const JsonView& json);
/// For `whence report`.
Page kernel_page(const JsonView& json);

}  // namespace whence::cli
