#pragma once
#include <nlohmann/json.hpp>
#include <vector>

#include "attribution_run.h"
#include "whence/store/ranking.h"

namespace whence::cli {

/// The rankings of a run on standard output.
void print_table(const AttributionRun& run, const std::vector<Ranking>& rankings);

/// What the reader should know before believing the table, out of run.json.
void print_evidence(const nlohmann::ordered_json& run);

}  // namespace whence::cli
