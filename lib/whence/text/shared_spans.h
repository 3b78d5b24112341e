#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace whence {

/// Bytes begin .. end of a text that stand word for word in another.
struct SharedSpan {
  std::size_t begin, end;
  std::size_t words;
};

/// The longest spans of `text` that `query` has too, in the order of the text and without overlap: at most `most`, of
/// at least `least` words each. Words are told apart by white space, and ASCII's capitals are not. By a suffix
/// automaton of the query: time and memory grow with the words of both.
std::vector<SharedSpan> shared_spans(std::string_view query, std::string_view text, std::size_t least = 4,
                                     std::size_t most = 3);

}  // namespace whence
