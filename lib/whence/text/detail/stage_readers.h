#pragma once
#include <fmt/format.h>

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/error.h"
#include "whence/text/detail/component.h"
#include "whence/text/detail/regex.h"

namespace whence::detail {

/// Which function reads a component of each "type".
template <class Function>
using StageReaders = std::map<std::string, Function*>;

/// What `name` stands for in `values`, things of this kind. Throws DataError of `component`, listing their names, when
/// it is none of them.
template <class Value>
Value find_named(std::string_view kind, const std::map<std::string, Value>& values, const std::string& name,
                 const Component& component) {
  const auto found = values.find(name);
  if (found == values.end()) {
    std::vector<std::string> names;
    for (const auto& [known, value] : values) {
      names.push_back(known);
    }
    component.fail(unknown_name(kind, name, names));
  }
  return found->second;
}

/// What reads a component of its "type".
template <class Function>
Function* find_reader(std::string_view kind, const StageReaders<Function>& readers, const Component& component) {
  return find_named(kind, readers, component.text("type"), component);
}

/// Most stages of one kind. Tokenizers have a handful, and each takes time for every text.
inline constexpr std::size_t kMostStages = 64;

template <class List>
void check_count(const Component& component, const List& stages) {
  if (stages.size() > kMostStages) {
    component.fail(fmt::format("more than {} stages, which no tokenizer has", kMostStages));
  }
}

/// Reads the stages that a sequence lists under `key`, with read(component, stages).
template <class Stages, class Read>
void read_parts(const Component& component, const char* key, Stages& stages, Read&& read) {
  for (const auto& part : component.objects(key)) {
    read(part, stages);
    check_count(component, stages);
  }
}

/// The key "pattern": {"String": text} or {"Regex": expression}.
inline Pattern read_pattern(const Component& component) {
  const auto pattern = component.object("pattern");
  try {
    return pattern.has("Regex") ? Pattern(pattern.text("Regex"), Pattern::Kind::kRegex)
                                : Pattern(pattern.text("String"), Pattern::Kind::kLiteral);
  } catch (const DataError& error) {
    pattern.fail(error.what());
  }
}

}  // namespace whence::detail
