#pragma once
#include <filesystem>

#include "attribution_run.h"

namespace whence::cli {

/// One JSON object an example, the one that moves its own loss most first:
/// {"stage", "example", "score", "removal", "label", "prediction", "origin"}, those that there are. Appears whole or
/// not at all.
void write_self_ranking(const std::filesystem::path& path, const AttributionRun& run,
                        const std::vector<AttributionRun::SelfRanking>& rankings);

/// The first `top` of each stage on standard output.
void print_self_ranking(const AttributionRun& run, const std::vector<AttributionRun::SelfRanking>& rankings,
                        std::int64_t top);

}  // namespace whence::cli
