// Every parameter is trained, from where the stage before stopped. The pull towards the parent is the second case of H.
// Chen et al., "Multi-Stage Influence Function", NeurIPS 2020, with c the Hessian of the proximity term.
#include <ATen/ATen.h>

#include "whence/core/described.h"
#include "whence/tuning/tuning.h"

namespace whence {
namespace {

struct FullOptions {
  double proximity = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("proximity", self.proximity, kAtLeastZero,
          "c of c/2 |body - parent's body|^2, in place of the body's weight decay; 0: no pull, weight decay instead");
  }
};

class FullTuning : public Tuning, public Described {
 public:
  explicit FullTuning(FullOptions options) : options_(options) {}

  std::string description() const override { return options_text(options_); }
  /// What the stage before added and could not fold is trained too.
  ParameterSet trainable(const TuningStart& start, const Random&) const override {
    const auto &fresh = start.fresh, &parent = start.parent;
    if (parent.empty() && options_.proximity > 0) {
      throw InvalidArgument("full: option proximity needs a stage before this one to stay close to");
    }
    TensorList values;
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      const auto& name = fresh.names()[i];
      values.push_back(parent.contains(name) ? parent.at(name) : fresh.values()[i]);
    }
    return fresh.with(std::move(values)).join(parent.without(fresh)).with_additions(parent.additions());
  }

  ParameterSet merge(const ParameterSet&, const ParameterSet& tuned) const override { return tuned; }

  at::Tensor penalty(const ParameterSet& parent, const ParameterSet& tuned, double weight_decay) const override {
    auto total = at::zeros({}, tuned.values().front().options());
    for (std::size_t i = 0; i < tuned.size(); ++i) {
      const auto& value = tuned.values()[i];
      if (options_.proximity > 0 && parent.contains(tuned.names()[i])) {
        total = total + 0.5 * options_.proximity * (value - parent.at(tuned.names()[i])).pow(2).sum();
      } else if (weight_decay > 0) {
        total = total + 0.5 * weight_decay * value.pow(2).sum();
      }
    }
    return total;
  }

  bool merge_uses_parent() const override { return false; }
  bool remembers_parent() const override { return options_.proximity > 0; }

 private:
  FullOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, full, FullTuning, FullOptions)

}  // namespace whence
