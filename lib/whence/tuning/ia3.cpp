// A scale for each number that a layer gives, or sees. H. Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is
// Better and Cheaper than In-Context Learning", NeurIPS 2022.
#include <ATen/ATen.h>

#include "whence/models/ops.h"
#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct Ia3Options {
  std::string feedforward;
  std::string targets{detail::kAllTargets};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("feedforward", self.feedforward, AnyText{},
          "those of the layers, a+b, whose inputs are scaled, as PEFT does in feed-forward layers; of the others the "
          "output is, bias included");
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end; all: every linear layer and convolution of the body");
  }
};

class OutputScale : public Addition {
 public:
  explicit OutputScale(const detail::Target& target) : scale_(target.qualified("ia3_l")), target_(target) {}

  at::Tensor after(const ParameterSet& theta, const TapeEntry&, const at::Tensor&, const at::Tensor& output,
                   Tape* tape) const override {
    return scaled(theta, scale_, "", output, tape);
  }

  bool folds() const override { return true; }
  Folded folded(const ParameterSet& theta) const override {
    const auto& scale = theta.at(scale_);  // [out, 1]
    const auto& bias = target_.site.bias;
    return {target_.as_weight(target_.matrix(theta.at(target_.site.weight)) * scale),
            bias.empty() ? at::Tensor() : theta.at(bias) * scale.flatten()};
  }

 private:
  std::string scale_;
  detail::Target target_;
};

class InputScale : public Addition {
 public:
  explicit InputScale(const detail::Target& target) : scale_(target.qualified("ia3_l")), target_(target) {}

  at::Tensor before(const ParameterSet& theta, const TapeEntry&, const at::Tensor& x, Tape* tape) const override {
    return scaled(theta, scale_, "", x, tape);
  }

  bool folds() const override { return true; }
  Folded folded(const ParameterSet& theta) const override {
    const auto& weight = theta.at(target_.site.weight);
    auto shape = std::vector<std::int64_t>(static_cast<std::size_t>(weight.dim()), 1);
    shape[target_.site.transposed ? 0 : 1] = theta.at(scale_).numel();
    return {weight * theta.at(scale_).view(shape), {}};
  }

 private:
  std::string scale_;
  detail::Target target_;
};

class Ia3 : public detail::AddedTuning {
 public:
  explicit Ia3(Ia3Options options) : options_(std::move(options)) {}
  std::string description() const override { return options_text(options_); }

 protected:
  std::string_view name() const override { return "ia3"; }
  std::string_view targets() const override { return options_.targets; }
  void check(const std::vector<detail::Target>& chosen) const override {
    detail::named_layers(name(), "feedforward", options_.feedforward, chosen);
  }

  ParameterSet start(const detail::Target& target, const Random&) const override {
    if (scales_input(target)) {  // of a convolution, its channels
      return {{"ia3_l", at::ones({1, target.weight.size(target.site.transposed ? 0 : 1)}, at::kDouble)}};
    }
    return {{"ia3_l", at::ones({target.outputs(), 1}, at::kDouble)}};
  }
  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    if (scales_input(target)) {
      return std::make_shared<InputScale>(target);
    }
    return std::make_shared<OutputScale>(target);
  }
  double neutral(std::string_view) const override { return 1; }

 private:
  bool scales_input(const detail::Target& target) const {
    return detail::is_among(target.module, options_.feedforward);
  }

  Ia3Options options_;
};

}  // namespace

WHENCE_METHOD(Tuning, ia3, Ia3, Ia3Options)

}  // namespace whence
