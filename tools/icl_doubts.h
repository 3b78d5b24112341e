#pragma once
#include <string>
#include <vector>

#include "whence/icl/prompt_reader.h"
#include "whence/icl/ridge_view.h"

namespace whence::cli {

/// What is odd about a task: demonstrations that are the same or contradict each other, queries that are among them.
std::vector<std::string> doubts_of(const PromptTask& task);
/// What of it has no scores, or none that say anything.
std::vector<std::string> doubts_of(const PromptTask& task, const PromptReading& reading);
/// Where the regulariser's term, and not the residual, orders the scores: their rank correlation with the scores
/// without that term is below 0.2. Measured so, wrong labels came last (tests/bench/icl/README.md). `self`: whether the
/// self scores are the regression's.
std::vector<std::string> doubts_of(const IclTask& task, const IclScores& scores, const RidgeOptions& options,
                                   bool self);

}  // namespace whence::cli
