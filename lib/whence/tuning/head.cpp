// Only the stage's head is trained; the body is the parent's, unchanged. The first case of H. Chen et al., "Multi-Stage
// Influence Function", NeurIPS 2020.
#include <ATen/ATen.h>

#include "whence/tuning/tuning.h"

namespace whence {
namespace {

class HeadTuning : public Tuning {
 public:
  explicit HeadTuning(NoOptions) {}

  ParameterSet trainable(const TuningStart& start, const Random&) const override {
    if (start.parent.empty()) {
      throw InvalidArgument("head: a stage that trains only its head needs a stage before it that trains the body");
    }
    auto head = start.fresh.without(start.parent);
    if (head.empty()) {
      throw InvalidArgument(
          "head: the stage before hands on every parameter of the model, so there is no head to train");
    }
    return head;
  }

  ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const override {
    return parent.join(tuned);
  }

  at::Tensor penalty(const ParameterSet&, const ParameterSet& tuned, double weight_decay) const override {
    auto total = at::zeros({}, tuned.values().front().options());
    for (const auto& value : tuned.values()) {
      total = total + 0.5 * weight_decay * value.pow(2).sum();
    }
    return total;
  }

  bool merge_uses_parent() const override { return true; }
  bool remembers_parent() const override { return true; }
};

}  // namespace

WHENCE_METHOD(Tuning, head, HeadTuning, NoOptions)

}  // namespace whence
