// The scales and shifts of the body's norms are trained, from the parent's, and pulled towards them; the rest of the
// body is the parent's. B. Zhao et al., "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
// ICLR 2024.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/error.h"
#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

class NormTuning : public detail::InPlaceTuning {
 public:
  explicit NormTuning(NoOptions) {}

  ParameterSet trainable(const TuningStart& start, const Random&) const override {
    const auto& parent = start.parent;
    if (parent.empty()) {
      throw InvalidArgument("norm: it trains the norms of a body that a stage before hands on, and there is none");
    }
    auto out = start.head.of(start.fresh).without(parent);
    std::vector<std::string> layers;
    const auto tape = start.pass();
    for (const auto& entry : tape.entries) {
      if (parent.contains(entry.weight)) {
        layers.emplace_back(layer_module(entry.weight));
      }
      if (entry.kind != TapeEntry::Kind::kScale || entry.weight.empty() || is_added(entry.weight)) {
        continue;
      }
      for (const auto& name : {entry.weight, entry.bias}) {
        if (parent.contains(name) && !out.contains(name)) {
          out.add(name, parent.at(name));
        }
      }
    }
    if (out.without(start.head.of(out)).empty()) {
      throw InvalidArgument(fmt::format("norm: no norm in the body, whose layers are {}", fmt::join(layers, ", ")));
    }
    return out;
  }
};

}  // namespace

WHENCE_METHOD(Tuning, norm, NormTuning, NoOptions)

}  // namespace whence
