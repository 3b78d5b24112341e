// A low-rank change of each weight, beside it: W + s B A, s = alpha / rank. E. Hu et al., "LoRA: Low-Rank Adaptation of
// Large Language Models", ICLR 2022. Rank-stabilised, s = alpha / sqrt(rank): D. Kalajdzievski, "A Rank Stabilization
// Scaling Factor for Fine-Tuning with LoRA", 2023. Lengths and directions apart, m V / |V| row by row with V = W + s B
// A: S. Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024; they hold |V| fixed in the gradient, here
// it is differentiated with the rest, so that what is minimised and its derivatives agree.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/models/ops.h"
#include "whence/tuning/detail/added_tuning.h"

namespace whence {
namespace {

struct LoraOptions {
  std::int64_t rank = 8;
  double alpha = 8;
  bool rank_stabilised = false;
  bool dora = false;
  std::string targets{detail::kAllTargets};
  std::string ranks, alphas, also;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "of the change of each weight");
    field("alpha", self.alpha, kPositive, "the change is scaled by alpha / rank");
    field("rank-stabilised", self.rank_stabilised, kAny, "by alpha / sqrt(rank) instead");
    field("dora", self.dora, kAny, "train the length of each row of a weight too, apart from its direction");
    field("targets", self.targets, AnyText{},
          "layers, a+b, by name or its end, embeddings too; all: every linear layer and convolution of the body");
    field("ranks", self.ranks, AnyText{}, "other ranks, a:4+b:2, of layers by name or its end");
    field("alphas", self.alphas, AnyText{}, "other alphas, the same way");
    field("also", self.also, AnyText{},
          "parameters of the body that are trained whole beside it, a+b, by name or its end: bias");
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
  /// B and A turned against each other; without a pull, any change of basis between them.
  std::int64_t flat_directions(const ParameterSet& theta, bool decayed) const override {
    const auto& a = theta.at(a_ + ".weight");
    return detail::flat_in_product(a.size(0), target_.outputs(), a.numel() / a.size(0), decayed);
  }

 private:
  std::string a_, b_;
  detail::Target target_;
  double scale_;
};

/// Of an embedding [count, width]: E + s (B A)', A [rank, count], B [width, rank]. A head that is the same matrix
/// changes with it.
class LowRankTable : public Addition {
 public:
  LowRankTable(const detail::Target& target, double scale)
      : a_(target.qualified("lora_embedding_A")),
        b_(target.qualified("lora_embedding_B")),
        weight_(target.site.weight),
        scale_(scale) {}

  at::Tensor after(const ParameterSet& theta, const TapeEntry& site, const at::Tensor& x, const at::Tensor& output,
                   Tape* tape) const override {
    if (site.kind == TapeEntry::Kind::kEmbedding) {
      const auto rows = embedding(theta, a_, x, tape, /*transposed=*/true);
      return output + linear(theta, {b_, ""}, scale_ * rows, tape);
    }
    const auto narrow = linear(theta, {b_, "", /*transposed=*/true}, x, tape);
    return output + linear(theta, {a_, "", /*transposed=*/true}, scale_ * narrow, tape);
  }

  bool folds() const override { return true; }
  Folded folded(const ParameterSet& theta) const override {
    return {theta.at(weight_) + at::mm(theta.at(b_), theta.at(a_)).t() * scale_, {}};
  }
  /// B and A turned against each other; without a pull, any change of basis between them.
  std::int64_t flat_directions(const ParameterSet& theta, bool decayed) const override {
    const auto& a = theta.at(a_);
    return detail::flat_in_product(a.size(0), theta.at(b_).size(0), a.size(1), decayed);
  }

 private:
  std::string a_, b_, weight_;
  double scale_;
};

constexpr std::string_view kLengths = ".lora_magnitude_vector";

class Decomposed : public Addition {
 public:
  Decomposed(const detail::Target& target, double scale)
      : a_(target.qualified("lora_A.weight")),
        b_(target.qualified("lora_B.weight")),
        lengths_(target.qualified("lora_magnitude_vector")),
        target_(target),
        scale_(scale) {}

  /// |row| of a weight: [out].
  static at::Tensor row_lengths(const detail::Target& target, const at::Tensor& weight) {
    return at::linalg_vector_norm(target.matrix(weight).contiguous(), 2, {1});
  }
  at::Tensor neutral_lengths(const ParameterSet& parent) const {
    return row_lengths(target_, parent.at(target_.site.weight));
  }

  std::vector<std::string> weight_sources() const override { return {target_.site.weight, a_, b_, lengths_}; }
  /// W times a quotient: where V is W and the lengths its own, that is 1 and W stays as it is, to the bit.
  at::Tensor weight(const ParameterSet& theta, const TapeEntry&) const override {
    const auto change = at::mm(theta.at(b_).flatten(1), theta.at(a_).flatten(1)) * scale_;
    const auto v = theta.at(target_.site.weight) + target_.as_weight(change);
    const auto stretch = theta.at(lengths_) / row_lengths(target_, v);
    return target_.as_weight(target_.matrix(v) * stretch.unsqueeze(1));
  }

  bool folds() const override { return true; }
  Folded folded(const ParameterSet& theta) const override { return {weight(theta, target_.site), {}}; }
  /// B and A turned against each other; without a pull, any change of basis between them, and where B A can make V's
  /// rows longer and leave their directions: D W, D diagonal, is to have no part outside the (out - k)(in - k)
  /// dimensions that changes of B A, of rank k, do not reach.
  std::int64_t flat_directions(const ParameterSet& theta, bool decayed) const override {
    const auto rank = theta.at(a_).size(0), out = target_.outputs(), in = target_.inputs();
    const auto k = std::min({rank, out, in});
    const auto longer = decayed ? 0 : std::max<std::int64_t>(0, out - (out - k) * (in - k));
    return detail::flat_in_product(rank, out, in, decayed) + longer;
  }

 private:
  std::string a_, b_, lengths_;
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
  std::string_view fitting() const override {
    return fits_embeddings() ? "linear layer, convolution or embedding" : AddedTuning::fitting();
  }
  bool fits(const TapeEntry& site) const override {
    return site.takes_additions() || (site.kind == TapeEntry::Kind::kEmbedding && fits_embeddings());
  }

  std::string_view also() const override { return options_.also; }
  /// The lengths of its rows.
  bool starts_from_parent() const override { return options_.dora; }
  void check(const std::vector<detail::Target>& chosen) const override {
    for (const auto& [option, list] : {std::pair("ranks", &options_.ranks), std::pair("alphas", &options_.alphas)}) {
      for (const auto& [layer, number] : detail::numbers_of_layers(name(), option, *list)) {
        detail::named_layers(name(), option, layer, chosen);
        if (list == &options_.ranks && (number != std::floor(number) || number > INT32_MAX)) {
          throw InvalidArgument(fmt::format("lora: option ranks = {}:{}, expected a whole number", layer, number));
        }
      }
    }
    detail::check_ranks(name(), chosen, [this](const detail::Target& target) { return rank(target); });
  }

  ParameterSet start(const detail::Target& target, const Random& random) const override {
    const auto r = rank(target);
    if (target.is_embedding()) {
      const auto count = target.weight.size(0), width = target.weight.size(1);
      return {{"lora_embedding_A", at::zeros({r, count}, at::kDouble)},
              {"lora_embedding_B", random.stream("lora_embedding_B").normal({width, r})}};
    }
    const double edge = 1 / std::sqrt(static_cast<double>(target.inputs()));
    std::vector<std::int64_t> down{r, target.inputs()}, up{target.outputs(), r};
    if (target.is_convolution()) {
      down = target.weight.sizes().vec();
      down[0] = r;
      up = {target.outputs(), r, 1, 1};
    }
    ParameterSet out{{"lora_A.weight", random.stream("lora_A").uniform(down, -edge, edge)},
                     {"lora_B.weight", at::zeros(up, at::kDouble)}};
    if (options_.dora) {
      const auto lengths = Decomposed::row_lengths(target, target.weight);
      if (lengths.eq(0).any().item<bool>()) {
        throw InvalidArgument(fmt::format(
            "lora: dora needs a direction of each row, and a row of {}'s weight is 0: leave it out of targets",
            target.module));
      }
      out.add("lora_magnitude_vector", lengths);
    }
    return out;
  }

  std::shared_ptr<const Addition> addition(const detail::Target& target) const override {
    const auto r = static_cast<double>(rank(target));
    const double alpha = number_for(target, "alphas", options_.alphas, options_.alpha);
    const double scale = alpha / (options_.rank_stabilised ? std::sqrt(r) : r);
    if (target.is_embedding()) {
      return std::make_shared<LowRankTable>(target, scale);
    }
    if (options_.dora) {
      return std::make_shared<Decomposed>(target, scale);
    }
    return std::make_shared<LowRank>(target, scale);
  }

  at::Tensor squared_distance(const ParameterSet& parent, const ParameterSet& tuned,
                              const std::string& name) const override {
    if (name.ends_with(kLengths)) {
      const auto module = name.substr(kAddedPrefix.size(), name.size() - kAddedPrefix.size() - kLengths.size());
      const auto& decomposed = dynamic_cast<const Decomposed&>(*tuned.additions()->at(module).back());
      return (tuned.at(name) - decomposed.neutral_lengths(parent)).square().sum();
    }
    return AddedTuning::squared_distance(parent, tuned, name);
  }

 private:
  double number_for(const detail::Target& target, std::string_view option, std::string_view list, double usual) const {
    for (const auto& [layer, number] : detail::numbers_of_layers(name(), option, list)) {
      if (detail::is_among(target.module, layer)) {
        return number;
      }
    }
    return usual;
  }
  std::int64_t rank(const detail::Target& target) const {
    return static_cast<std::int64_t>(number_for(target, "ranks", options_.ranks, static_cast<double>(options_.rank)));
  }

  /// Where they are named.
  bool fits_embeddings() const { return !options_.dora && options_.targets != detail::kAllTargets; }

  LoraOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, lora, Lora, LoraOptions)

}  // namespace whence
