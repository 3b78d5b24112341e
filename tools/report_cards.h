#pragma once
#include <vector>

#include "whence/core/json.h"
#include "whence/report/html.h"
#include "whence/stages/pipeline.h"
#include "whence/store/ranking.h"

namespace whence::cli {

/// One card a query, with the lists of all scored stages: what the page shows of a ranking.
std::vector<QueryCard> query_cards(const Pipeline& pipeline, const JsonView& run, const std::vector<Ranking>& rankings);

/// Leaves of each query on the page as many columns as are shown; until then they tell queries apart.
void cut_queries(Page& page);

/// What the page shows of --self, of its ranking.jsonl: a list a stage, its first 60 examples. Throws DataError naming
/// the file and the line.
std::vector<ExampleLists> suspect_lists(const Pipeline& pipeline, const JsonView& run,
                                        const std::filesystem::path& path);

}  // namespace whence::cli
