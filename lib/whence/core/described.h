#pragma once
#include <string>
#include <typeinfo>

#include "whence/core/options.h"

namespace whence {

/// Base of methods that have options, so that a file which rests on one can tell it from another of its type.
class Described {
 public:
  virtual ~Described() = default;
  /// Equal only where two objects of a type compute the same.
  virtual std::string description() const = 0;
};

/// "widths=64/32,activation=tanh": every option with its value.
template <class Options>
std::string options_text(const Options& options) {
  std::string out;
  for (const auto& option : describe(options)) {
    out += (out.empty() ? "" : ",") + option.name + '=' + option.value;
  }
  return out;
}

/// What an object computes, as far as it says: its type and its description.
template <class Base>
std::string identity(const Base& object) {
  const auto* described = dynamic_cast<const Described*>(&object);
  return std::string(typeid(object).name()) + (described == nullptr ? "" : ':' + described->description());
}

}  // namespace whence
