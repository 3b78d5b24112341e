#pragma once

#include "cli.h"
#include "json.h"
#include "whence/report/html.h"
#include "whence/stages/stage.h"

namespace whence::cli {

/// `whence inspect PIPELINE --spectrum`: its flags, what it finds, and how that is shown.
void add_spectrum_options(CommandLine& line);
/// The same of a stage by a curvature's spec, from `probes` vectors by so many `steps`.
Json spectrum_of(const Stage& stage, const std::string& curvature, std::int64_t probes, std::int64_t steps,
                 const Random& random, const Progress& progress);
/// That as a page shows it; `damping` is what was added to it.
EvaluationSection spectrum_section(const Json& spectrum, double damping);
Json inspect_spectrum(const CommandLine& line, const Pipeline& pipeline);
void print_spectrum(const Json& json);

}  // namespace whence::cli
