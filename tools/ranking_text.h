#pragma once
#include <vector>

#include "attribution_run.h"
#include "whence/core/json.h"
#include "whence/store/ranking.h"

namespace whence::cli {

/// The rankings of a run on standard output.
void print_table(const AttributionRun& run, const std::vector<Ranking>& rankings);

/// What the reader should know before believing the table, out of run.json.
void print_evidence(const JsonView& run);

}  // namespace whence::cli
