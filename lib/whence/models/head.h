#pragma once
#include <string>
#include <string_view>
#include <utility>

#include "whence/core/parameters.h"

namespace whence {

/// The part of a model that belongs to one stage, by name: the parameters called NAME.* are its head, all others the
/// body, which a stage hands on.
class Head {
 public:
  /// Built-in models call theirs `head`. An empty name: the model has none, and all is body.
  explicit Head(std::string name = "head") : name_(std::move(name)) {}

  /// Of the one layer that it is, in most models.
  const std::string& name() const { return name_; }
  /// NAME.part, and back: a name of the body stays as it is.
  std::string qualified(std::string_view part) const { return prefix().append(part); }
  std::string unqualified(std::string_view parameter) const {
    return std::string(holds(parameter) ? parameter.substr(prefix().size()) : parameter);
  }

  bool holds(std::string_view parameter) const { return parameter.starts_with(prefix()); }
  /// The head of a model's parameters.
  ParameterSet of(const ParameterSet& theta) const { return theta.select(prefix()); }
  /// What is left of them without it, additions too.
  ParameterSet body(const ParameterSet& theta) const {
    return theta.without(prefix()).with_additions(theta.additions());
  }

 private:
  std::string prefix() const { return name_ + "."; }

  std::string name_;
};

}  // namespace whence
