// A shift of what each layer gives: its bias, trained. E. Ben Zaken, S. Ravfogel and Y. Goldberg, "BitFit: Simple
// Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", ACL 2022.
#include <ATen/ATen.h>

#include "whence/models/ops.h"
#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct BiasOptions {
  std::string targets{detail::kAllTargets};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end; all: every linear layer and convolution of the body");
  }
};

class Shift : public Addition {
 public:
  explicit Shift(const detail::Target& target) : delta_(target.qualified("bias_delta")), site_(target.site) {}

  at::Tensor after(const ParameterSet& theta, const TapeEntry&, const at::Tensor&, const at::Tensor& output,
                   Tape* tape) const override {
    return scaled(theta, "", delta_, output, tape);
  }

  /// A shift needs a bias to go to.
  bool folds() const override { return !site_.bias.empty(); }
  Folded folded(const ParameterSet& theta) const override {
    return {theta.at(site_.weight), theta.at(site_.bias) + theta.at(delta_)};
  }

 private:
  std::string delta_;
  TapeEntry site_;
};

class Bias : public detail::AddedTuning {
 public:
  explicit Bias(BiasOptions options) : options_(std::move(options)) {}
  std::string description() const override { return options_text(options_); }

 protected:
  std::string_view name() const override { return "bias"; }
  std::string_view targets() const override { return options_.targets; }

  ParameterSet start(const detail::Target& target, const Random&) const override {
    return {{"bias_delta", at::zeros({target.outputs()}, at::kDouble)}};
  }
  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    return std::make_shared<Shift>(target);
  }

 private:
  BiasOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, bias, Bias, BiasOptions)

}  // namespace whence
