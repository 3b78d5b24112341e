#pragma once
#include <string>
#include <vector>

#include "json.h"
#include "whence/attribution/attribute.h"

namespace whence::cli {

/// A run of rank or score that is to be planned.
struct PlannedRun {
  const Chain& chain;
  const Attributor& attributor;
  InverseOptions inverse;
  const std::vector<std::size_t>& stages;
  const Dataset& queries;
  Measurement measurement;
  Normalization normalization;
  std::int64_t query_block;
  const ScoreSource& source;
  std::string curvature, solver;  ///< Empty where nothing is solved.
  double score_bytes;             ///< Of one score on disk.
  double program_bytes;           ///< What the process held before anything was loaded.
};

struct SecondsRange {
  double low = 0, high = 0;  ///< NaN: at least `low`.
};
/// What scoring takes once all is loaded, told as make_plan() tells it, at the same cost. `program_bytes` and
/// `score_bytes` are not looked at.
SecondsRange scoring_seconds(const PlannedRun& run);

/// Memory, disk, time and which parameters count. The run's first block of queries is rehearsed on parts of the data,
/// with two whole batches and three times with less (or once, where two hold all), and what that took is told of all
/// the data as if examples were alike. Cost: seconds, and where one solve takes longer, up to 10 s of a processor each
/// time.
Json make_plan(const PlannedRun& run);
void print_plan(const Json& plan);

}  // namespace whence::cli
