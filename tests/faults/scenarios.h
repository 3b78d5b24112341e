#pragma once
#include <string>

#include "faults/jobs.h"
#include "faults/trace.h"

namespace whence::faults {

/// Runs `whence LINE`, words apart by spaces.
Outcome run_tool(const Settings& settings, const std::string& line, Way way);

/// Nothing where a run ended as a failing one must: this status, no signal, in time, and behind warnings one line on
/// standard error.
std::string how_it_failed(const Outcome& outcome, int status);

// Each prints what did not hold and counts, and returns whether all held.
bool disturbed(const Settings& settings);
bool changed(const Settings& settings);
bool hostile(const Settings& settings);
bool places(const Settings& settings);

}  // namespace whence::faults
