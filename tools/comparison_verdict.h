#pragma once

#include "json.h"
#include "truth.h"
#include "whence/evaluate/verdict.h"
#include "whence/report/html.h"

namespace whence::cli {

/// What a table of `whence evaluate --methods` comes to: which method agrees best with the truth, whether that is sure,
/// and what to type. Methods are apart where their intervals are, which asks for more than a test of the difference
/// would. Trusted: a leader from Figure::good on, or whose share of the ceiling is
/// surely most of it, and a truth that favours none.
Verdict verdict_of_comparison(const Json& result, const Truth& truth);

/// The table as a page shows it: each method's figure with its interval, beside the ceiling.
EvaluationSection comparison_section(const Json& result, const Truth& truth);

}  // namespace whence::cli
