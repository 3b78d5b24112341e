#pragma once
#include <string>
#include <vector>

#include "cli.h"
#include "whence/stages/choice.h"

namespace whence::cli {

/// The flags that rank and score share.
void add_attribution_options(CommandLine& line);

/// What --curvature, --solver, --damping, --relative-damping, --response and --inversion ask. Throws UsageError or
/// InvalidArgument with what was expected.
InverseRequest inverse_request(const CommandLine& line);

/// The arguments and those of the earlier run that --from names, wherever it stands; what is given here wins. `line`
/// knows the options. Throws UsageError or DataError where that is no run.json of rank or score.
std::vector<std::string> with_earlier(const CommandLine& line, const std::vector<std::string>& arguments);

}  // namespace whence::cli
