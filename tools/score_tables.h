#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "attribution_run.h"

namespace whence::cli {

/// The words of --format. Throws UsageError with the known ones.
std::vector<std::string> parse_formats(const std::string& text);

/// The files that the next two may write into `folder`.
std::vector<std::filesystem::path> table_files(const std::filesystem::path& folder, const AttributionRun& run,
                                               const std::vector<std::string>& formats);
/// What scores.safetensors in `folder` holds, for other programs: with csv and jsonl a table of examples with a column
/// a query and one of queries, with npy the matrix and ids and labels beside it. docs/attribution.md lists the files.
void write_score_tables(const std::filesystem::path& folder, const AttributionRun& run,
                        const std::vector<std::string>& formats);
/// The rankings, a row an entry. Nothing with npy.
void write_ranking_tables(const std::filesystem::path& folder, const AttributionRun& run,
                          const std::vector<Ranking>& rankings, const std::vector<std::string>& formats);

}  // namespace whence::cli
