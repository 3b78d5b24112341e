#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "whence/attribution/attribute.h"

namespace whence::cli {

/// A run of rank or score that is to be planned.
struct PlannedRun {
  const Chain& chain;
  const std::vector<std::size_t>& stages;
  const Dataset& queries;
  Measurement measurement;
  Normalization normalization;
  std::int64_t query_block;
  const ScoreSource& source;
  std::string curvature, solver;  ///< Empty where nothing is solved.
  Inversion inversion;
  double score_bytes;    ///< Of one score on disk.
  double program_bytes;  ///< What the process held before anything was loaded.
};

/// What the process holds in memory now; 0 where the system does not tell.
double resident_bytes();

/// Memory, disk, time and which parameters count. Times are taken of a gradient over a few batches, and told of all as
/// if they were alike. Cost: a few gradients.
nlohmann::ordered_json make_plan(const PlannedRun& run);
void print_plan(const nlohmann::ordered_json& plan);

}  // namespace whence::cli
