// Each weight behind a chain of reflections of its inputs: W H_1 … H_r, H = I - 2 u u' / |u|^2. S. Yuan, H. Liu and
// H. Xu, "Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation", NeurIPS
// 2024. It starts as they do, with pairs of equal u, which are the identity.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct HraOptions {
  std::int64_t rank = 8;
  std::string targets{detail::kAllTargets};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "reflections, an even number: they start in pairs");
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end; all: every linear layer and convolution of the body");
  }
};

class Reflected : public Addition {
 public:
  explicit Reflected(const detail::Target& target) : u_(target.qualified("hra_u")), target_(target) {}

  std::vector<std::string> weight_sources() const override { return {target_.site.weight, u_}; }
  /// Two reflections at a time, by how far their unit vectors p and q are apart: with d = p - q, p' q = 1 - |d|^2 / 2,
  /// so that H_p H_q = I + 2 d q' - 2 p (d' + |d|^2 q'). Where p = q nothing is added, to the bit.
  at::Tensor weight(const ParameterSet& theta, const TapeEntry&) const override {
    auto out = target_.matrix(theta.at(target_.site.weight));
    TensorList units;  // each normalised alone, so that equal ones stay equal
    for (const auto& u : theta.at(u_).t().contiguous().unbind(0)) {
      units.push_back(u / u.norm());
    }
    for (std::size_t i = 0; i < units.size(); i += 2) {
      const auto &p = units[i], &q = units[i + 1];
      const auto d = p - q;
      out = out + 2 * at::outer(at::mv(out, d), q) - 2 * at::outer(at::mv(out, p), d + d.dot(d) * q);
    }
    return target_.as_weight(out);
  }

  bool folds() const override { return true; }
  Folded folded(const ParameterSet& theta) const override { return {weight(theta, target_.site), {}}; }
  /// The r lengths, and what moves the directions and leaves the weight: of W H_1 … H_r, whose rows are turned in k
  /// dimensions of n, the least of r, n and the rows, k n - k (k + 1) / 2 numbers are seen. Nothing pulls at any.
  std::int64_t flat_directions(const ParameterSet& theta, bool) const override {
    const auto n = theta.at(u_).size(0), r = theta.at(u_).size(1), k = std::min({r, n, target_.outputs()});
    return r * n - (k * n - k * (k + 1) / 2);
  }

 private:
  std::string u_;
  detail::Target target_;
};

class Hra : public detail::AddedTuning {
 public:
  explicit Hra(HraOptions options) : options_(std::move(options)) {
    if (options_.rank % 2 != 0) {
      throw InvalidArgument(fmt::format("hra: option rank = {}, expected an even number", options_.rank));
    }
  }
  std::string description() const override { return options_text(options_); }

 protected:
  std::string_view name() const override { return "hra"; }
  std::string_view targets() const override { return options_.targets; }

  void check(const std::vector<detail::Target>& chosen) const override {
    detail::check_ranks(name(), chosen, [this](const detail::Target&) { return options_.rank; });
  }
  ParameterSet start(const detail::Target& target, const Random& random) const override {
    const double edge = 1 / std::sqrt(static_cast<double>(target.inputs()));
    const auto half = random.stream("hra_u").uniform({target.inputs(), options_.rank / 2}, -edge, edge);
    return {{"hra_u", half.repeat_interleave(2, 1)}};
  }
  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    return std::make_shared<Reflected>(target);
  }
  /// A reflection has no length, and where it mirrors is no amount: nothing pulls at it.
  at::Tensor squared_distance(const ParameterSet& parent, const ParameterSet& tuned,
                              const std::string& name) const override {
    return is_added(name) ? at::zeros({}, tuned.at(name).options())
                          : AddedTuning::squared_distance(parent, tuned, name);
  }

 private:
  HraOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, hra, Hra, HraOptions)

}  // namespace whence
