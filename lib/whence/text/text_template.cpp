#include "whence/text/text_template.h"

#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"

namespace whence {

TextTemplate::TextTemplate(const std::string& pattern, const std::string& what, const std::vector<std::string>& columns,
                           const std::optional<std::string>& mask) {
  std::string literal;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if ((pattern[i] == '{' || pattern[i] == '}') && pattern.substr(i, 2) == std::string(2, pattern[i])) {
      literal += pattern[i++];
    } else if (pattern[i] == '{') {
      const auto close = pattern.find('}', i);
      if (close == pattern.npos) {
        throw InvalidArgument(fmt::format("{} = \"{}\": a brace has no end (write {{{{ for a brace)", what, pattern));
      }
      const auto name = pattern.substr(i + 1, close - i - 1);
      i = close;
      const auto found = std::find(columns.begin(), columns.end(), name);
      if (name == "mask" && mask) {
        literal += *mask;
        masks_ = true;
      } else if (found == columns.end()) {
        throw InvalidArgument(fmt::format("{} = \"{}\": {}", what, pattern, unknown_name("column", name, columns)));
      } else {
        parts_.push_back({std::move(literal), static_cast<std::size_t>(found - columns.begin())});
        literal.clear();
      }
    } else {
      literal += pattern[i];
    }
  }
  end_ = std::move(literal);
  if (parts_.empty()) {
    throw InvalidArgument(fmt::format("{} = \"{}\" has no placeholder, expected a column in braces: {{{}}}", what,
                                      pattern, columns.empty() ? "text" : columns.front()));
  }
}

std::vector<std::size_t> TextTemplate::order() const {
  std::vector<std::size_t> out;
  for (const auto& part : parts_) {
    out.push_back(part.column);
  }
  return out;
}

std::string TextTemplate::fill(const std::vector<std::string>& cells, std::vector<std::size_t>* begins) const {
  std::string out;
  for (const auto& [literal, column] : parts_) {
    out += literal;
    if (begins != nullptr) {
      begins->push_back(out.size());
    }
    out += cells[column];
  }
  return out + end_;
}

}  // namespace whence
