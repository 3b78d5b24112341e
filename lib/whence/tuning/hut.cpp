// Each weight times two low-rank patterns, entry by entry, and a scale and a shift of what comes out: W'[i, j] =
// W[i, j] a[i, floor(j r / in)] b[floor(i r / out), j], output = gamma (W' x + bias) + beta. Zhang, Zhou and Chen,
// "HUT: A More Computation Efficient Fine-Tuning Method With Hadamard Updated Transformation", 2024, as interface.md
// reads it.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/models/ops.h"
#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct HutOptions {
  std::int64_t rank = 8;
  std::string targets{detail::kAllTargets};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "scales of a row, each over as many columns, and of a column over rows");
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end; all: every linear layer and convolution of the body");
  }
};

/// [groups, n] or [n, groups] spread to n entries of the axis: entry i is that of group floor(i groups / n).
at::Tensor spread(const at::Tensor& x, std::int64_t axis, std::int64_t n) {
  const auto groups = x.size(axis);
  return x.index_select(axis,
                        at::floor_divide(at::arange(n, x.options().dtype(at::kLong).requires_grad(false)) * groups, n));
}

class HadamardUpdate : public Addition {
 public:
  explicit HadamardUpdate(const detail::Target& target)
      : a_(target.qualified("hut_a")),
        b_(target.qualified("hut_b")),
        gamma_(target.qualified("hut_gamma")),
        beta_(target.qualified("hut_beta")),
        target_(target) {}

  std::vector<std::string> weight_sources() const override { return {target_.site.weight, a_, b_}; }
  at::Tensor weight(const ParameterSet& theta, const TapeEntry&) const override {
    const auto& own = theta.at(target_.site.weight);
    const auto out = target_.outputs(), in = target_.inputs();
    const auto scale = spread(theta.at(a_), 1, in) * spread(theta.at(b_), 0, out);  // [out, in]
    return own * (target_.site.transposed ? scale.t() : scale.view(own.sizes()));
  }
  at::Tensor after(const ParameterSet& theta, const TapeEntry&, const at::Tensor&, const at::Tensor& output,
                   Tape* tape) const override {
    return scaled(theta, gamma_, beta_, output, tape);
  }

  /// A shift needs a bias to go to.
  bool folds() const override { return !target_.site.bias.empty(); }
  Folded folded(const ParameterSet& theta) const override {
    const auto &gamma = theta.at(gamma_), &bias = theta.at(target_.site.bias);
    auto shape = std::vector<std::int64_t>(static_cast<std::size_t>(target_.weight.dim()), 1);
    shape[target_.site.transposed ? 1 : 0] = target_.outputs();
    return {weight(theta, target_.site) * gamma.view(shape), gamma * bias + theta.at(beta_)};
  }
  /// The scales of a against b in each block that shares them, and of a row of a against gamma. A pull to 1 knows them.
  std::int64_t flat_directions(const ParameterSet& theta, bool decayed) const override {
    const auto& a = theta.at(a_);
    return decayed ? 0 : a.size(1) * a.size(1) + a.size(0);
  }

 private:
  std::string a_, b_, gamma_, beta_;
  detail::Target target_;
};

class Hut : public detail::AddedTuning {
 public:
  explicit Hut(HutOptions options) : options_(std::move(options)) {}
  std::string description() const override { return options_text(options_); }

 protected:
  std::string_view name() const override { return "hut"; }
  std::string_view targets() const override { return options_.targets; }

  ParameterSet start(const detail::Target& target, const Random&) const override {
    const auto out = target.outputs(), in = target.inputs(), r = options_.rank;
    if (r > std::min(out, in)) {
      throw InvalidArgument(fmt::format("hut: option rank = {}, expected at most {}, the shorter side of {}", r,
                                        std::min(out, in), target.module));
    }
    return {{"hut_a", at::ones({out, r}, at::kDouble)},
            {"hut_b", at::ones({r, in}, at::kDouble)},
            {"hut_gamma", at::ones({out}, at::kDouble)},
            {"hut_beta", at::zeros({out}, at::kDouble)}};
  }
  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    return std::make_shared<HadamardUpdate>(target);
  }
  double neutral(std::string_view parameter) const override { return parameter.ends_with("hut_beta") ? 0 : 1; }

 private:
  HutOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, hut, Hut, HutOptions)

}  // namespace whence
