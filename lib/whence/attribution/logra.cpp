// S. Choe et al., "What is Your Data Worth to GPT? LLM-Scale Data Valuation with Influence Functions", 2024: LoGra. A
// layer's gradient dW [out, in] is a sum of outer products of the signal at its output and its input, so P_o' dW P_i is
// one of the projected two and the gradient is never formed. A bias counts as the weight of one more input, always 1.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/attribution/detail/feature_source.h"
#include "whence/attribution/detail/gradient_source.h"
#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/core/symmetric_eigen.h"
#include "whence/models/addition.h"
#include "whence/models/taped_pass.h"

namespace whence {
namespace {

struct LograOptions {
  std::int64_t rank = 16;
  std::string initial = "random";
  std::string covariance = "layer";
  std::int64_t seed = 0;
  detail::CovarianceDamping damping{.relative_damping = 0.1};

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rank", self.rank, kAtLeastOne, "of the projections on either side of a layer: rank^2 features a layer");
    field("initial", self.initial, OneOf{"random|pca"},
          "random: orthonormal; pca: where inputs and signals of the examples are largest, one more pass");
    field("covariance", self.covariance, OneOf{"layer|joint"}, "of each layer's features, or of all together");
    field("seed", self.seed, kAtLeastZero, "of the random projections");
    detail::CovarianceDamping::fields(self.damping, field, "times their mean, added to them; the paper's");
  }
};

/// One layer's two projections, and where its features stand.
struct ProjectedLayer {
  std::string name, bias_name;  ///< Of its weight and its bias.
  bool weight, bias;            ///< Which of the two is attributed.
  bool transposed;              ///< Its first use, as TapeEntry.
  at::Tensor in;                ///< [inputs, rank]
  at::Tensor out;               ///< [outputs, rank]
  std::int64_t offset, width;
};

/// A use of a layer in a pass as inputs [B, T, inputs] and signals [B, T, outputs], T places each. Each group of a
/// convolution is a use, at rows of its own of the weight's matrix.
struct Use {
  const ProjectedLayer* layer;
  at::Tensor inputs, signals;
  std::int64_t first_input = 0, first_output = 0;  ///< Of the layer's.
};

/// The rows that a use has of a side of its layer.
at::Tensor rows_at(const at::Tensor& side, std::int64_t first, const at::Tensor& seen) {
  return side.narrow(0, first, seen.size(2));
}

class LograSource : public detail::FeatureSource {
 public:
  LograSource(const Chain& chain, LograOptions options)
      : FeatureSource(chain), options_(std::move(options)), layers_(chain.size()) {}

  std::vector<std::string> parameters(std::size_t stage) const override {
    std::vector<std::string> out;
    for (const auto& layer : attributed(stage)) {
      if (layer.weight) {
        out.push_back(layer.name);
      }
      if (layer.bias) {
        out.push_back(layer.bias_name);
      }
    }
    return out;
  }

  MethodCost cost(std::size_t stage, std::int64_t query_block) const override {
    double features = 0, squares = 0;
    for (const auto& layer : attributed(stage)) {
      const auto width = static_cast<double>(layer.width);
      features += width;
      squares += width * width;
    }
    if (options_.covariance == "joint") {
      squares = features * features;
    }
    const auto size = static_cast<double>(chain_[stage].theta.front().element_size());
    MethodCost out;
    out.passes_once = options_.initial == "pca" ? 2 : 1;
    out.passes_a_block = 1;
    out.gradients_a_query = 1;
    out.bytes =
        16 * squares + features * size * static_cast<double>(chain_[stage].objective.batch_size() + query_block);
    out.bytes_a_query = features * size;
    return out;
  }

 protected:
  std::string_view name() const override { return "logra"; }

  detail::InverseCovariance fit(std::size_t stage, const Progress& progress) override {
    auto& layers = layers_[stage];
    layers = attributed(stage);
    const auto options = algebra_options(chain_[stage].theta.front().options());
    if (options_.initial == "pca") {
      set_principal_axes(stage, layers, progress);
    } else {
      const auto random = Random(static_cast<std::uint64_t>(options_.seed)).stream("logra");
      const auto orthonormal = [&](const std::string& name, const at::Tensor& like) {
        return std::get<0>(at::linalg_qr(random.stream(name).normal(like.sizes()))).to(options);
      };
      for (auto& layer : layers) {
        layer.in = orthonormal(layer.name + ", inputs", layer.in);
        layer.out = orthonormal(layer.name + ", outputs", layer.out);
      }
    }
    std::vector<std::int64_t> widths;
    for (const auto& layer : layers) {
      widths.push_back(layer.width);
    }
    if (options_.covariance == "joint") {
      widths = {layers.back().offset + layers.back().width};
    }
    detail::InverseCovariance covariance(widths);
    pass(stage, "covariance of", progress, [&](const Batch& batch) { covariance.add(example_features(stage, batch)); });
    covariance.finish(options_.damping, fmt::format("stage {}: logra", chain_[stage].name));
    return covariance;
  }

  at::Tensor query_features(std::size_t stage, const QueryBlock& queries) override {
    const auto& last = chain_.back();
    TensorList rows;
    const auto step = last.objective.batch_size();
    for (auto q = queries.begin; q < queries.end; q += step) {
      const auto batch = queries.data.batch(q, std::min(queries.end, q + step));
      rows.push_back(features(last, batch, layers_[stage], measured(queries.measurement, last.objective.loss())));
    }
    return at::cat(rows);
  }

  at::Tensor example_features(std::size_t stage, const Batch& batch) override {
    const auto& at = chain_[stage];
    return features(at, batch, layers_[stage], at.objective.loss());
  }

 private:
  /// The layers that share a trained parameter with the queries, with empty projections of the right shapes.
  std::vector<ProjectedLayer> attributed(std::size_t stage) const {
    const auto& at = chain_[stage];
    const auto shared = detail::shared_parameters(chain_, stage);
    const auto merged = at.objective.merge(at.theta, at.parent);
    const auto has = [&](const std::string& name) {
      return std::find(shared.begin(), shared.end(), name) != shared.end();
    };
    Tape tape;
    at.objective.model().output(merged, at.objective.data().batch(0, 1), &tape);
    std::vector<ProjectedLayer> out;
    std::int64_t offset = 0;
    for (const auto& entry : tape.entries) {
      const bool weight = has(entry.weight), bias = has(entry.bias);
      check_products(entry, weight || bias, has);
      const bool again =
          std::any_of(out.begin(), out.end(), [&](const auto& layer) { return layer.name == entry.weight; });
      if (!entry.multiplies() || again || (!weight && !bias)) {
        continue;
      }
      const auto& value = merged.at(entry.weight);
      const auto outputs = entry.outputs(value) * (entry.transposed ? 1 : entry.groups);
      const auto inputs = (weight ? value.numel() / outputs : 0) + (bias ? 1 : 0);
      const auto in_rank = std::min(options_.rank, inputs), out_rank = std::min(options_.rank, outputs);
      out.push_back({entry.weight, entry.bias, weight, bias, entry.transposed,
                     at::empty({inputs, in_rank}, algebra_options(value.options())),
                     at::empty({outputs, out_rank}, algebra_options(value.options())), offset, in_rank * out_rank});
      offset += in_rank * out_rank;
    }
    return out;
  }

  /// What a tuning trains beside layers has to be matrices that layers multiply with.
  template <class Has>
  static void check_products(const TapeEntry& entry, bool any, const Has& has) {
    const auto sources = weight_sources(entry);
    const bool own = !entry.multiplies() && any && (is_added(entry.weight) || is_added(entry.bias));
    if (own || (entry.made_by && std::any_of(sources.begin(), sources.end(), has))) {
      throw InvalidArgument(
          fmt::format("logra: what the tuning trains at layer {} is no matrix that the layer multiplies with: use "
                      "--method trak",
                      entry.weight.empty() ? entry.bias : entry.weight));
    }
  }

  static std::vector<Use> see(const Stage& at, const Batch& batch, const std::vector<ProjectedLayer>& layers,
                              const PerExample& values) {
    const auto projected = [&](const TapeEntry& entry) {
      return std::find_if(layers.begin(), layers.end(), [&](const auto& layer) { return layer.name == entry.weight; });
    };
    const c10::AutoGradMode with_grad(true);
    const TapedPass pass(
        at.objective.model(), at.objective.merge(at.theta, at.parent), batch,
        [&](const TapeEntry& entry) { return entry.multiplies() && projected(entry) != layers.end(); });
    const auto signals = pass.signals(values(pass.output(), batch));
    const c10::NoGradGuard no_gradient;
    std::vector<Use> out;
    for (std::size_t i = 0; i < signals.size(); ++i) {
      const auto& whole = pass.entries()[i];
      const auto layer = projected(whole);
      for (std::int64_t group = 0; group < whole.groups; ++group) {
        const auto entry = of_group(whole, group);
        const bool own_bias = layer->bias && whole.bias == layer->bias_name;  // another use of the weight may have none
        if (!layer->weight && !own_bias) {
          continue;
        }
        Use use{&*layer, input_columns(entry, layer->weight, own_bias),
                widened(signal_positions(entry, of_group(whole, signals[i], group)))};
        (whole.transposed ? use.first_input : use.first_output) =
            group * (whole.transposed ? use.inputs : use.signals).size(2);
        if (whole.transposed != layer->transposed) {  // a matrix used both ways round: each side of it stays one side
          std::swap(use.inputs, use.signals);
        }
        if (layer->bias && !own_bias) {
          use.inputs = at::constant_pad_nd(use.inputs, {0, 1});
        }
        out.push_back(std::move(use));
      }
    }
    return out;
  }

  static at::Tensor features(const Stage& at, const Batch& batch, const std::vector<ProjectedLayer>& layers,
                             const PerExample& values) {
    const auto uses = see(at, batch, layers, values);
    const c10::NoGradGuard no_gradient;
    auto out = at::zeros({batch.size(), layers.back().offset + layers.back().width},
                         algebra_options(at.theta.front().options()));
    for (const auto& use : uses) {
      const auto& layer = *use.layer;
      const auto in = use.inputs.matmul(rows_at(layer.in, use.first_input, use.inputs));  // [B, T, rank]
      const auto signal = use.signals.matmul(rows_at(layer.out, use.first_output, use.signals));
      out.narrow(1, layer.offset, layer.width).add_(at::bmm(signal.transpose(1, 2), in).flatten(1));
    }
    return out;
  }

  /// The eigenvectors of the second moments of inputs and signals with the largest eigenvalues.
  void set_principal_axes(std::size_t stage, std::vector<ProjectedLayer>& layers, const Progress& progress) const {
    const auto& at = chain_[stage];
    std::map<std::string, std::pair<at::Tensor, at::Tensor>> moments;
    pass(stage, "principal axes of", progress, [&](const Batch& batch) {
      const auto uses = see(at, batch, layers, at.objective.loss());
      for (const auto& use : uses) {
        auto& [of_inputs, of_signals] = moments[use.layer->name];
        const auto wide = use.inputs.options().dtype(at::kDouble);
        const auto& layer = *use.layer;
        const auto square = [&](const at::Tensor& side) { return at::zeros({side.size(0), side.size(0)}, wide); };
        of_inputs = of_inputs.defined() ? of_inputs : square(layer.in);
        of_signals = of_signals.defined() ? of_signals : square(layer.out);
        auto inputs_here =
            rows_at(of_inputs, use.first_input, use.inputs).narrow(1, use.first_input, use.inputs.size(2));
        auto signals_here =
            rows_at(of_signals, use.first_output, use.signals).narrow(1, use.first_output, use.signals.size(2));
        const auto bytes = 8 * use.inputs.size(1) * (use.inputs.size(2) + use.signals.size(2));
        in_chunks(use.inputs.size(0), bytes, [&](std::int64_t begin, std::int64_t count) {
          const auto in = use.inputs.narrow(0, begin, count).flatten(0, 1).to(at::kDouble);
          const auto out = use.signals.narrow(0, begin, count).flatten(0, 1).to(at::kDouble);
          inputs_here.addmm_(in.t(), in);
          signals_here.addmm_(out.t(), out);
        });
      }
    });
    const auto largest = [](const at::Tensor& moment, const at::Tensor& like) {
      const auto vectors = symmetric_eigen(moment, "second moment for the principal axes").vectors;
      return vectors.narrow(1, vectors.size(1) - like.size(1), like.size(1)).to(like.options()).contiguous();
    };
    for (auto& layer : layers) {
      layer.in = largest(moments.at(layer.name).first, layer.in);
      layer.out = largest(moments.at(layer.name).second, layer.out);
    }
  }

  LograOptions options_;
  std::vector<std::vector<ProjectedLayer>> layers_;
};

class Logra : public Attributor {
 public:
  explicit Logra(LograOptions options) : options_(std::move(options)) {}
  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kRemoval; }
  bool draws_by_names() const override { return options_.initial == "random"; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<LograSource>(chain, options_);
  }

 private:
  LograOptions options_;
};

}  // namespace

WHENCE_METHOD(Attributor, logra, Logra, LograOptions)

}  // namespace whence
