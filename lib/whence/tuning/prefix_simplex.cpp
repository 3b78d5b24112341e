// Several prefixes and heads, the vertices of a simplex of models, trained together: each example is computed with a
// point of the simplex that is drawn for it, one at each attention and one for the head. L. Falissard, V. Guigue and L.
// Soulier, "Improving generalization in large language models by learning prefix subspaces", Findings of EMNLP 2023.
//
// The draws are fixed, one point of each part for each example: Dirichlet(1), by the example's id, the part and the
// seed alone. So an example's loss is a function of the parameters, the objective their mean, and gradients, curvature
// and retraining are those of one function. A pass over examples that are not the stage's own (queries, predictions) is
// at the simplex's middle, which is an ordinary prefix and head, as is what the next stage receives.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/models/ensemble.h"
#include "whence/models/ops.h"
#include "whence/tuning/detail/prefixes.h"

namespace whence {
namespace {

struct SimplexOptions {
  std::int64_t vertices = 4;
  std::int64_t length = 10;
  bool heads = true;
  double beta = 0;
  double deviation = 1;
  std::int64_t seed = 0;
  std::string inference = "midpoint";
  std::int64_t draws = 16;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("vertices", self.vertices, kAtLeastOne, "prefixes, and heads, of which every example sees a mean of its own");
    field("length", self.length, kAtLeastOne, "keys and values of each, before every text, at each attention");
    field("heads", self.heads, kAny, "whether the head has vertices too, or is one");
    field("beta", self.beta, kAtLeastZero, "of beta times the mean over pairs of prefixes of their squared cosine");
    field("deviation", self.deviation, kAtLeastZero, "standard deviation of where the prefixes start");
    field("seed", self.seed, kAtLeastZero, "of the draws");
    field("inference", self.inference, OneOf{"midpoint|ensemble"},
          "how queries are computed: with the simplex's middle, or as the mean of the probabilities of some draws");
    field("draws", self.draws, kAtLeastOne, "of an ensemble: models, the same for every query");
  }
};

/// Points of a simplex.
class Draws {
 public:
  Draws(const std::string& part, const SimplexOptions& options)
      : vertices_(options.vertices),
        stream_(Random(static_cast<std::uint64_t>(options.seed)).stream("simplex").stream(part)),
        ensemble_(options.inference == "ensemble" ? options.draws : 0) {}
  std::int64_t vertices() const { return vertices_; }
  std::int64_t ensemble() const { return ensemble_; }

  /// Those of a batch's examples: [B, vertices], float64 on the CPU, rows summing to 1.
  at::Tensor of(const Batch& batch) const {
    TensorList rows;
    for (std::int64_t b = 0; b < batch.size(); ++b) {
      rows.push_back(drawn(std::to_string(batch.ids[b].item<std::int64_t>())));
    }
    return at::cat(rows);
  }
  /// That of a model of the bank, whatever the example: [1, vertices].
  at::Tensor of_model(std::int64_t number) const { return drawn(fmt::format("model {}", number)); }

 private:
  at::Tensor drawn(const std::string& by) const {
    const auto waits = -at::log1p(-stream_.stream(by).uniform({1, vertices_}, 0, 1));  // exponential
    return waits / waits.sum(1, /*keepdim=*/true);
  }

  std::int64_t vertices_;
  Random stream_;
  std::int64_t ensemble_;
};

/// What vertex v gives, [rows, n], times the points' share of it: `shares` [rows, vertices], or [1, vertices], or
/// undefined, the middle.
at::Tensor shared(const at::Tensor& given, std::int64_t v, const at::Tensor& shares, std::int64_t vertices) {
  return shares.defined() ? given * shares.narrow(1, v, 1).to(given.device(), given.scalar_type())
                          : given / static_cast<double>(vertices);
}

class SimplexPrefix : public detail::PlainPrefix, public ManyModels {
 public:
  SimplexPrefix(const AttentionSite& site, std::int64_t layer, const SimplexOptions& options)
      : PlainPrefix(site, layer, options.length), draws_(site.module, options) {}

  at::Tensor logits(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& q, Tape* tape) const override {
    return mean(theta, detail::prefix_key(site().module, key_head), /*transposed=*/false, q, tape);
  }
  at::Tensor brought(const ParameterSet& theta, std::int64_t key_head, const at::Tensor& weights,
                     Tape* tape) const override {
    return mean(theta, detail::prefix_value(site().module, key_head), /*transposed=*/true, weights, tape);
  }
  Whole whole(const ParameterSet& theta) const override {
    return shares_.defined() && shares_.size(0) > 1 ? Whole{} : PlainPrefix::whole(plain(theta));
  }
  std::shared_ptr<const Addition> in_batch(const Batch& batch) const override {
    if (!batch.sampled) {
      return nullptr;
    }
    auto own = std::make_shared<SimplexPrefix>(*this);
    own->shares_ = draws_.of(batch).index_select(0, batch.text->tokens.owners.cpu());
    return own;
  }

  std::shared_ptr<const Addition> drawn(std::int64_t number) const override {
    auto own = std::make_shared<SimplexPrefix>(*this);
    own->shares_ = draws_.of_model(number);
    return own;
  }
  std::int64_t ensemble() const override { return shares_.defined() ? 0 : draws_.ensemble(); }

  /// The parameters of the plain prefix that it is for all texts: at the simplex's middle, or at one draw.
  ParameterSet plain(const ParameterSet& theta) const {
    ParameterSet out;
    for (const auto& name : parameters()) {
      at::Tensor sum;
      for (std::int64_t v = 0; v < draws_.vertices(); ++v) {
        const auto part = shared(theta.at(vertex(name, v)), v, shares_, draws_.vertices());
        sum = sum.defined() ? sum + part : part;
      }
      out.add(name, sum);
    }
    return out;
  }

  static std::string vertex(const std::string& of_prefix, std::int64_t number) {
    return fmt::format("{}.{}", of_prefix, number);
  }

 private:
  at::Tensor mean(const ParameterSet& theta, const std::string& name, bool transposed, const at::Tensor& x,
                  Tape* tape) const {
    at::Tensor sum;
    for (std::int64_t v = 0; v < draws_.vertices(); ++v) {
      const auto part =
          shared(linear(theta, {vertex(name, v), "", transposed}, x, tape), v, shares_, draws_.vertices());
      sum = sum.defined() ? sum + part : part;
    }
    return sum;
  }

  Draws draws_;
  at::Tensor shares_;  // [rows of tokens, vertices], or [1, vertices] for all; undefined: the middle
};

/// A layer of the head with the other vertices beside its own weights, which are the first.
class SimplexHead : public Addition, public ManyModels {
 public:
  SimplexHead(std::string module, const SimplexOptions& options)
      : module_(std::move(module)), draws_("head", options) {}
  bool folds() const override { return false; }

  at::Tensor after(const ParameterSet& theta, const TapeEntry&, const at::Tensor& x, const at::Tensor& output,
                   Tape* tape) const override {
    auto sum = shared(output, 0, shares_, draws_.vertices());
    for (std::int64_t v = 1; v < draws_.vertices(); ++v) {
      sum = sum + shared(linear(theta, vertex(module_, v), x, tape), v, shares_, draws_.vertices());
    }
    return sum;
  }
  std::shared_ptr<const Addition> in_batch(const Batch& batch) const override {
    if (!batch.sampled) {
      return nullptr;
    }
    auto own = std::make_shared<SimplexHead>(*this);
    own->shares_ = draws_.of(batch);
    return own;
  }
  std::shared_ptr<const Addition> drawn(std::int64_t number) const override {
    auto own = std::make_shared<SimplexHead>(*this);
    own->shares_ = draws_.of_model(number);
    return own;
  }
  std::int64_t ensemble() const override { return shares_.defined() ? 0 : draws_.ensemble(); }

  static std::string vertex(std::string_view module, std::int64_t number) {
    return added_name(module, fmt::format("vertex.{}", number));
  }

 private:
  std::string module_;
  Draws draws_;
  at::Tensor shares_;  // [B, vertices], or [1, vertices] for all; undefined: the middle
};

class PrefixSimplex : public detail::BeforeTexts {
 public:
  explicit PrefixSimplex(SimplexOptions options) : options_(options) {}
  std::string description() const override { return options_text(options_); }

  ParameterSet hand_on(const Head&, const ParameterSet& parent, const ParameterSet& tuned) const override {
    ParameterSet middle;
    Additions plain;
    for (const auto* prefix : detail::prefixes_of(tuned)) {
      middle = middle.join(dynamic_cast<const SimplexPrefix&>(*prefix).plain(tuned));
      plain[prefix->site().module].push_back(
          std::make_shared<detail::PlainPrefix>(prefix->site(), prefix->layer(), prefix->length()));
    }
    return parent.join(middle.with_additions(std::make_shared<const Additions>(std::move(plain))));
  }

  /// The simplex's middle: of each parameter the mean over its vertices.
  ParameterSet plain_head(const Head& head, const ParameterSet& merged) const override {
    const auto first = head.of(merged);
    TensorList values;
    for (std::size_t i = 0; i < first.size(); ++i) {
      const auto& name = first.names()[i];
      const auto dot = name.rfind('.');
      TensorList vertices{first.values()[i]};
      for (std::int64_t v = 1; v < options_.vertices; ++v) {
        const auto other = SimplexHead::vertex(name.substr(0, dot), v) + name.substr(dot);
        if (merged.contains(other)) {
          vertices.push_back(merged.at(other));
        }
      }
      values.push_back(vertices.size() == 1 ? vertices[0] : at::stack(vertices).mean(0));
    }
    return first.with(std::move(values));
  }

  /// Of prefixes as vectors of all layers' keys and values. M. Wortsman et al., "Learning Neural Network Subspaces",
  /// ICML 2021, who take one random pair a step, of which this is the mean.
  at::Tensor coupling(const ParameterSet& tuned) const override {
    if (options_.beta == 0 || options_.vertices < 2) {
      return {};
    }
    TensorList vertices;  // [1, entries] each
    for (std::int64_t v = 0; v < options_.vertices; ++v) {
      TensorList parts;
      for (const auto* prefix : detail::prefixes_of(tuned)) {
        for (const auto& parameter : prefix->parameters()) {
          parts.push_back(tuned.at(SimplexPrefix::vertex(parameter, v)).reshape({1, -1}));
        }
      }
      vertices.push_back(at::cat(parts, 1));
    }
    constexpr double kTiny = 1e-30;  // prefixes may start at 0
    const auto rows = at::cat(vertices);
    const auto products = at::mm(rows, rows.t());
    const auto lengths = products.diagonal() + kTiny;
    const auto cosines = products.square() / lengths.unsqueeze(0) / lengths.unsqueeze(1);
    const auto m = static_cast<double>(options_.vertices);
    return options_.beta * (cosines.sum() - cosines.diagonal().sum()) / (m * (m - 1));
  }

 protected:
  std::string_view name() const override { return "prefix-simplex"; }

  ParameterSet added(const TuningStart& start, const Tape& pass, const Random& random) const override {
    const auto sites = detail::sites_for_prefix(name(), start.parent, pass);
    ParameterSet out;
    Additions additions;
    for (std::size_t l = 0; l < sites.size(); ++l) {
      const auto& site = sites[l];
      const auto prefix = std::make_shared<SimplexPrefix>(site, static_cast<std::int64_t>(l), options_);
      for (const auto& part : prefix->parameters()) {
        for (std::int64_t v = 0; v < options_.vertices; ++v) {
          const auto parameter = SimplexPrefix::vertex(part, v);
          out.add(parameter, options_.deviation * random.stream(parameter).normal({options_.length, site.head_width}));
        }
      }
      additions[site.module].push_back(prefix);
    }
    if (options_.heads) {
      add_heads(start, pass, random, out, additions);
    }
    return out.with_additions(std::make_shared<const Additions>(std::move(additions)));
  }

 private:
  /// The other vertices of each linear layer of the head, whose weights are drawn with the deviation of the first's.
  void add_heads(const TuningStart& start, const Tape& pass, const Random& random, ParameterSet& out,
                 Additions& additions) const {
    for (const auto& entry : pass.entries) {
      if (entry.kind != TapeEntry::Kind::kLinear || !start.head.holds(entry.weight)) {
        continue;
      }
      const std::string module(layer_module(entry.weight));
      if (additions.count(module) > 0 || options_.vertices == 1) {
        continue;
      }
      for (std::int64_t v = 1; v < options_.vertices; ++v) {
        const auto vertex = SimplexHead::vertex(module, v);
        const auto first = start.fresh.at(entry.weight).detach().to(at::kCPU, at::kDouble);
        out.add(vertex + ".weight", random.stream(vertex).normal(first.sizes()) * first.square().mean().sqrt());
        if (!entry.bias.empty()) {
          out.add(vertex + ".bias", start.fresh.at(entry.bias).detach().to(at::kCPU, at::kDouble));
        }
      }
      additions[module].push_back(std::make_shared<SimplexHead>(module, options_));
    }
  }

  SimplexOptions options_;
};

}  // namespace

WHENCE_METHOD(Tuning, prefix_simplex, PrefixSimplex, SimplexOptions)

}  // namespace whence
