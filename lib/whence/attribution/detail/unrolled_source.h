#pragma once
#include "whence/attribution/attributor.h"

namespace whence::detail {

/// Influence through training itself (stages/unrolled.h), for a problem whose response is unrolled. What it makes of a
/// block of queries are no vectors but the scores of all of a stage's examples, which scorers hand out.
std::unique_ptr<ScoreSource> unrolled_source(const Chain& chain, const InverseProblem& problem);

}  // namespace whence::detail
