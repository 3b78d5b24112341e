#pragma once
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "whence/core/error.h"

namespace whence::detail {

/// The value that a word of the table stands for. Throws InvalidArgument with the known words.
template <class Value, std::size_t Count>
Value parse_word(std::string_view kind, std::string_view word,
                 const std::array<std::pair<Value, std::string_view>, Count>& words) {
  std::vector<std::string> known;
  for (const auto& [value, name] : words) {
    if (name == word) {
      return value;
    }
    known.emplace_back(name);
  }
  throw InvalidArgument(unknown_name(kind, word, known));
}

}  // namespace whence::detail
