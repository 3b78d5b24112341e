#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace whence {

/// A text as a TOML file has it, in quotes and on one line: "a\"b". `text` is UTF-8.
std::string toml_text(std::string_view text);
/// A list of texts: ["a", "b"].
std::string toml_text(const std::vector<std::string>& texts);

/// A word of a command as a POSIX shell, or for control characters bash, reads it; as it is where nothing need be
/// quoted. One that begins with a dash gets ./ before it.
std::string shell_word(std::string_view text);

}  // namespace whence
