#pragma once
#include <nlohmann/json.hpp>

#include "cli.h"

namespace whence::cli {

/// `whence inspect PIPELINE --spectrum`: its flags, what it finds, and how that is shown.
void add_spectrum_options(CommandLine& line);
nlohmann::ordered_json inspect_spectrum(const CommandLine& line, const Pipeline& pipeline);
void print_spectrum(const nlohmann::ordered_json& json);

}  // namespace whence::cli
