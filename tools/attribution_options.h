#pragma once
#include <string>
#include <vector>

#include "cli.h"
#include "whence/stages/choice.h"

namespace whence::cli {

/// Of --response, beside the words of set_response(): through training itself (stages/unrolled.h).
inline constexpr const char* kUnrolled = "unrolled";

/// Takes a word of --response with its options. Throws InvalidArgument with all words.
void read_response(const std::string& spec, InverseOptions& options);

/// What a response says of itself.
struct ResponseTraits {
  bool inverts = true;           ///< A curvature; else it goes through training itself.
  bool assumes_minimum = false;  ///< Every stage is at its own.
};
/// Of --response.
ResponseTraits response_traits(const std::string& spec);

/// The flags that rank and score share.
void add_attribution_options(CommandLine& line);

/// The flags that say how a curvature is inverted, without --response.
const std::vector<std::string>& inverse_flags();

/// What --curvature, --solver, --damping, --relative-damping, --response and --inversion ask. Throws UsageError or
/// InvalidArgument with what was expected.
InverseRequest inverse_request(const CommandLine& line);

/// CommandLine::parse() of the arguments and, behind them, those of the earlier run that --from names: what is given
/// here wins. Throws DataError where that is no run.json of rank or score.
bool parse_with_earlier(CommandLine& line, const std::vector<std::string>& arguments);

}  // namespace whence::cli
