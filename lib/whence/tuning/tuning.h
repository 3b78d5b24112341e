#pragma once
#include <functional>

#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/core/registry.h"
#include "whence/models/head.h"
#include "whence/models/tape.h"

namespace whence {

/// What a tuning has to start from.
struct TuningStart {
  ParameterSet fresh;   ///< The model's initial parameters, with this stage's new head.
  ParameterSet parent;  ///< The body that the stage before handed on; empty at the first.
  Head head;
  std::function<Tape()> pass;  ///< The layers that one example goes through, on the parent's body and the new head.
};

/// What a stage trains, and how the model computes with it. `parent` is the body that the stage before handed on (empty
/// at the first stage): what it does not hold is this stage's head. `tuned` is what this stage trains, as trainable()
/// made it but for its values.
class Tuning {
 public:
  virtual ~Tuning() = default;
  /// What is trained, with where training starts: where the outputs are those of the parent's body and the new head,
  /// but for what stands before texts (prefix, prompt), which changes nothing at length 0 alone. Throws InvalidArgument
  /// where the parent and the model do not fit, naming the parameter or the layer.
  virtual ParameterSet trainable(const TuningStart& start, const Random& random) const = 0;
  /// All that the model computes with, differentiable in both: the operations see it (models/ops.h).
  virtual ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const = 0;
  /// The body that the next stage receives, differentiable in both. What was added to layers is folded into their
  /// weights where it can be, else handed on beside them.
  virtual ParameterSet hand_on(const Head& head, const ParameterSet& parent, const ParameterSet& tuned) const {
    return head.body(merge(parent, tuned));
  }
  /// The stage's regulariser: a scalar, quadratic in `tuned` and `parent` together. interface.md, "A stage's
  /// objective".
  virtual at::Tensor penalty(const ParameterSet& parent, const ParameterSet& tuned, double weight_decay) const = 0;
  /// What else the stage minimises of `tuned` alone: a scalar of any form, which may couple entries; undefined:
  /// nothing. The exact Hessian has its curvature, the other families, which are those of losses and a quadratic, have
  /// not.
  virtual at::Tensor coupling(const ParameterSet&) const { return {}; }
  /// Whether merge() uses the parent. Where it does not, the data loss has no mixed derivative and no pass over data is
  /// spent on it.
  virtual bool merge_uses_parent() const = 0;
  /// Whether anything the stage minimises uses the parent. Where not, nothing of the stages before can be felt at the
  /// minimum.
  virtual bool remembers_parent() const = 0;
  /// The head of what merge() gave, as one plain head.
  virtual ParameterSet plain_head(const Head& head, const ParameterSet& merged) const { return head.of(merged); }
  /// Whether training starts, in parameters that are not the parent's own, at numbers made of the parent's: then what
  /// is left of the start of a training that was stopped early moves with the parent too.
  virtual bool starts_from_parent() const { return false; }
};

WHENCE_DECLARE_ROOM(Tuning)

}  // namespace whence
