// A low-rank change of each weight, beside it: W + s B A, s = alpha / rank. E. Hu et al., "LoRA: Low-Rank Adaptation of
// Large Language Models", ICLR 2022. Rank-stabilised, s = alpha / sqrt(rank): D. Kalajdzievski, "A Rank Stabilization
// Scaling Factor for Fine-Tuning with LoRA", 2023.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "whence/models/ops.h"
#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct LoraOptions {
  std::int64_t rank = 8;
  double alpha = 8;
  bool rank_stabilised = false;
  std::string targets{detail::kAllTargets};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "of the change of each weight");
    field("alpha", self.alpha, kPositive, "the change is scaled by alpha / rank");
    field("rank-stabilised", self.rank_stabilised, kAny, "by alpha / sqrt(rank) instead");
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end; all: every linear layer and convolution of the body");
  }
};

class LowRank : public Addition {
 public:
  LowRank(const detail::Target& target, double scale)
      : a_(target.qualified("lora_A")), b_(target.qualified("lora_B")), target_(target), scale_(scale) {}

  at::Tensor after(const ParameterSet& theta, const TapeEntry& site, const at::Tensor& x, const at::Tensor& output,
                   Tape* tape) const override {
    if (site.kind == TapeEntry::Kind::kConvolution) {
      const auto narrow = convolution(theta, a_, x, site.stride[0], site.padding[0], tape);
      return output + convolution(theta, b_, scale_ * narrow, 1, 0, tape);
    }
    return output + linear(theta, b_, scale_ * linear(theta, a_, x, tape), tape);
  }

  bool folds() const override { return true; }
  Folded folded(const ParameterSet& theta) const override {
    const auto change = at::mm(theta.at(b_ + ".weight").flatten(1), theta.at(a_ + ".weight").flatten(1)) * scale_;
    const auto& weight = theta.at(target_.site.weight);
    return {weight + (target_.site.transposed ? change.t() : change).reshape(weight.sizes()), {}};
  }

 private:
  std::string a_, b_;
  detail::Target target_;
  double scale_;
};

class Lora : public detail::AddedTuning {
 public:
  explicit Lora(LoraOptions options) : options_(std::move(options)) {}
  std::string description() const override { return options_text(options_); }

 protected:
  std::string_view name() const override { return "lora"; }
  std::string_view targets() const override { return options_.targets; }

  ParameterSet start(const detail::Target& target, const Random& random) const override {
    const auto r = options_.rank;
    const double edge = 1 / std::sqrt(static_cast<double>(target.inputs()));
    std::vector<std::int64_t> down{r, target.inputs()}, up{target.outputs(), r};
    if (target.site.kind == TapeEntry::Kind::kConvolution) {
      down = target.weight.sizes().vec();
      down[0] = r;
      up = {target.outputs(), r, 1, 1};
    }
    return {{"lora_A.weight", random.stream("lora_A").uniform(down, -edge, edge)},
            {"lora_B.weight", at::zeros(up, at::kDouble)}};
  }

  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    const auto rank = static_cast<double>(options_.rank);
    return std::make_shared<LowRank>(target, options_.alpha / (options_.rank_stabilised ? std::sqrt(rank) : rank));
  }

 private:
  LoraOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, lora, Lora, LoraOptions)

}  // namespace whence
