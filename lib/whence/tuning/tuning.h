#pragma once
#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/core/registry.h"

namespace whence {

/// What a stage trains, and how that makes the model's parameters. `parent` is the body that the stage before handed on
/// (empty at the first stage): what it does not hold is this stage's head. `tuned` is what this stage trains.
class Tuning {
 public:
  virtual ~Tuning() = default;
  /// What is trained, with where training starts. `fresh` is the model's initial parameters, with this stage's new
  /// head. Throws InvalidArgument where the parent and the model do not fit, naming the parameter.
  virtual ParameterSet trainable(const ParameterSet& fresh, const ParameterSet& parent, Random& random) const = 0;
  /// All of the model's parameters, differentiable in both.
  virtual ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const = 0;
  /// The stage's regulariser: a scalar, quadratic in `tuned` and `parent` together. interface.md, "A stage's
  /// objective".
  virtual at::Tensor penalty(const ParameterSet& parent, const ParameterSet& tuned, double weight_decay) const = 0;
  /// Whether merge() uses the parent. Where it does not, the data loss has no mixed derivative and no pass over data is
  /// spent on it.
  virtual bool merge_uses_parent() const = 0;
  /// Whether anything the stage minimises uses the parent. Where not, nothing of the stages before can be felt at the
  /// minimum.
  virtual bool remembers_parent() const = 0;
};

template <>
std::span<const Method<Tuning>> methods<Tuning>();
template <>
std::string_view room_noun<Tuning>();

}  // namespace whence
