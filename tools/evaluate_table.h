#pragma once

#include "cli.h"
#include "json.h"

namespace whence::cli {

class Truth;

/// Prints an evaluation.json of such a table.
void print_comparison(const Json& result, const Truth& truth);

/// "; with every example …": how far the trainings that an evaluation compares with end from the checkpoint; empty
/// where that is not known, or nothing to speak of.
std::string reference_text(const Json& result);

/// The flags of `whence evaluate` that compare methods.
void add_table_options(CommandLine& line);

/// `whence evaluate PIPELINE --methods …`: the methods' scores are made and set beside one truth, a row each.
int evaluate_table(const CommandLine& line);

}  // namespace whence::cli
