// Each weight times a low-rank pattern, entry by entry, beside itself: W + W * (B A). Q. Huang et al., "HiRA:
// Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models", ICLR 2025.
#include <ATen/ATen.h>

#include <cmath>

#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct HiraOptions {
  std::int64_t rank = 32;
  std::string targets{detail::kAllTargets};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "of the pattern; the change itself may have any rank");
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end; all: every linear layer and convolution of the body");
  }
};

class Patterned : public Addition {
 public:
  explicit Patterned(const detail::Target& target)
      : a_(target.qualified("hira_A")), b_(target.qualified("hira_B")), target_(target) {}

  std::vector<std::string> weight_sources() const override { return {target_.site.weight, a_, b_}; }
  at::Tensor weight(const ParameterSet& theta, const TapeEntry&) const override {
    const auto& own = theta.at(target_.site.weight);
    return own + own * target_.as_weight(at::mm(theta.at(b_), theta.at(a_)));
  }

  bool folds() const override { return true; }
  Folded folded(const ParameterSet& theta) const override { return {weight(theta, target_.site), {}}; }
  /// B and A turned against each other; without a pull, any change of basis between them.
  std::int64_t flat_directions(const ParameterSet& theta, bool decayed) const override {
    return detail::flat_in_product(theta.at(a_).size(0), target_.outputs(), target_.inputs(), decayed);
  }

 private:
  std::string a_, b_;
  detail::Target target_;
};

class Hira : public detail::AddedTuning {
 public:
  explicit Hira(HiraOptions options) : options_(std::move(options)) {}
  std::string description() const override { return options_text(options_); }

 protected:
  std::string_view name() const override { return "hira"; }
  std::string_view targets() const override { return options_.targets; }

  void check(const std::vector<detail::Target>& chosen) const override {
    detail::check_ranks(name(), chosen, [this](const detail::Target&) { return options_.rank; });
  }
  ParameterSet start(const detail::Target& target, const Random& random) const override {
    const double edge = 1 / std::sqrt(static_cast<double>(target.inputs()));
    return {{"hira_A", random.stream("hira_A").uniform({options_.rank, target.inputs()}, -edge, edge)},
            {"hira_B", at::zeros({target.outputs(), options_.rank}, at::kDouble)}};
  }
  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    return std::make_shared<Patterned>(target);
  }

 private:
  HiraOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, hira, Hira, HiraOptions)

}  // namespace whence
