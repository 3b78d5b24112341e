#pragma once
#include <string>
#include <string_view>

namespace whence {

/// Whether a regular expression, as Python's re would, matches the whole of a text. PCRE2 reads it, which differs only
/// in what files of settings do not hold. Throws DataError without a place: what is wrong with the expression, or that
/// it takes too long.
bool matches_whole(const std::string& pattern, std::string_view text);

}  // namespace whence
