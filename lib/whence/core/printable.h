#pragma once
#include <string>
#include <string_view>

namespace whence {

/// `text` for a person, on one line: what would move a terminal's cursor, change its colours or turn the direction of
/// writing (control characters, line and paragraph separators, bidirectional controls, invisible tags) is spelled as
/// \n, \x1b or \u{202e}, and so is each byte that is not UTF-8. All other text stays as it is. For whatever prints what
/// stood in a file or in a name, and for nothing else: data keeps its bytes.
std::string printable(std::string_view text);

}  // namespace whence
