#pragma once
#include <optional>
#include <string>

#include "cli.h"

namespace whence::cli {

/// --queries, or the only split that the pipeline has; nothing where that leaves it open.
std::optional<std::string> query_split(const CommandLine& line, const Pipeline& pipeline);

/// The same. Throws UsageError with what to type where it is open; `instead` is what else can be typed where the
/// pipeline has no queries.
std::string required_query_split(const CommandLine& line, const Pipeline& pipeline, const std::string& instead = "");

}  // namespace whence::cli
