#pragma once
#include <fmt/format.h>

#include <map>
#include <string>
#include <vector>

#include "whence/core/error.h"
#include "whence/text/detail/component.h"
#include "whence/text/detail/regex.h"

namespace whence::detail {

/// Which function reads a component of each "type".
template <class Function>
using StageReaders = std::map<std::string, Function*>;

template <class Value>
std::vector<std::string> names_of(const std::map<std::string, Value>& values) {
  std::vector<std::string> names;
  for (const auto& [name, value] : values) {
    names.push_back(name);
  }
  return names;
}

/// Throws DataError that lists the types there are when `component` has another one.
template <class Function>
Function* find_reader(std::string_view kind, const StageReaders<Function>& readers, const Component& component) {
  const auto found = readers.find(component.text("type"));
  if (found == readers.end()) {
    component.fail_type(kind, names_of(readers));
  }
  return found->second;
}

/// Stages of one kind, at most. Tokenizers have a handful, and each takes time for every text.
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
