#pragma once
#include <string>
#include <vector>

#include "attribution_run.h"

namespace whence::cli {

/// The words of --format. Throws UsageError with the known ones.
std::vector<std::string> parse_formats(const std::string& text);

/// Names of the files that the next two may place.
std::vector<std::string> table_files(const AttributionRun& run, const std::vector<std::string>& formats);
/// What scores.safetensors holds, for other programs: with csv and jsonl a table of examples with a column a query and
/// one of queries, with npy the matrix and ids and labels beside it. docs/attribution.md lists the files.
void write_score_tables(AttributionRun& run, const std::vector<std::string>& formats);
/// The rankings, a row an entry. Nothing with npy.
void write_ranking_tables(AttributionRun& run, const std::vector<Ranking>& rankings,
                          const std::vector<std::string>& formats);

}  // namespace whence::cli
