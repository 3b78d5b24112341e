// Similarity of what the last layer sees. K. Hanawa et al., "Evaluation of Similarity-based Explanations", ICLR 2021.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "whence/attribution/attributor.h"
#include "whence/core/rounding.h"
#include "whence/models/language_model.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

struct RepSimOptions {
  std::string similarity = "cosine";

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("similarity", self.similarity, OneOf{"cosine|dot"}, "of the two inputs of the last layer");
  }
};

/// What a stage's model makes of each example before its last layer: what that layer is given or, of texts, the mean
/// over the tokens of what the last block leaves. [B, D]
at::Tensor last_hidden(const Stage& stage, const Batch& batch) {
  if (const auto* language = dynamic_cast<const LanguageModel*>(&stage.objective.model())) {
    const auto merged = stage.objective.merge(stage.theta, stage.parent);
    const auto rows = language->hidden_states(merged, batch, {language->blocks()})[0];
    return sum_rows(batch.text->tokens,
                    rows * batch.text->examples.flatten().ge(0).unsqueeze(1).to(rows.scalar_type())) /
           batch.text->lengths.unsqueeze(1);
  }
  Tape tape;
  stage.objective.output(stage.theta, stage.parent, batch, &tape);
  if (tape.entries.empty()) {
    throw InvalidArgument("rep-sim: the model records no layer, so there is nothing to compare");
  }
  return tape.entries.back().input.flatten(1);
}

/// The same, of length 1 for the cosine.
at::Tensor representations(const Stage& stage, const Batch& batch, bool cosine) {
  const at::NoGradGuard no_gradient;
  const DerivativeOrder first(1);
  const auto hidden = widened(last_hidden(stage, batch));
  return cosine ? hidden / at::linalg_vector_norm(hidden, 2, {1}, /*keepdim=*/true).clamp_min(1e-30) : hidden;
}

class RepSimScorer : public Scorer {
 public:
  RepSimScorer(const Stage& stage, at::Tensor vectors, bool cosine)
      : stage_(stage), vectors_(std::move(vectors)), cosine_(cosine) {}
  at::Tensor scores(const Batch& batch) const override {
    const auto seen = representations(stage_, batch, cosine_);
    return vectors_.to(seen.options()).mm(seen.t());
  }

 private:
  const Stage& stage_;
  at::Tensor vectors_;
  bool cosine_;
};

/// Both sides as the examples' own stage sees them. A similar example is taken to help: it raises a log-probability, a
/// logit or a margin, and lowers a loss, whose scores are minus the similarity.
class RepSimSource : public ScoreSource {
 public:
  RepSimSource(const Chain& chain, const RepSimOptions& options)
      : chain_(chain), cosine_(options.similarity == "cosine") {}

  void check(const std::vector<std::size_t>&, Measurement, Normalization normalization) const override {
    if (normalization != Normalization::kNone) {
      throw InvalidArgument("normalize = " + std::string(to_string(normalization)) +
                            " with rep-sim, which takes no gradients: use its option similarity");
    }
  }

  std::vector<QueryDirections> directions(const QueryBlock& queries, const std::vector<std::size_t>& stages,
                                          const Progress&) override {
    std::vector<QueryDirections> out(chain_.size());
    const double sign = queries.measurement == Measurement::kLoss ? -1 : 1;
    for (const auto k : stages) {
      TensorList rows;
      const auto step = chain_[k].objective.batch_size();
      for (auto q = queries.begin; q < queries.end; q += step) {
        rows.push_back(representations(chain_[k], queries.data.batch(q, std::min(queries.end, q + step)), cosine_));
      }
      out[k].points = {Directions{{"representations", at::cat(rows) * sign}}};
    }
    return out;
  }

  std::unique_ptr<Scorer> scorer(std::size_t stage, const QueryDirections& directions, const Progress&) override {
    return std::make_unique<RepSimScorer>(chain_[stage], directions.points.front().values().front(), cosine_);
  }
  at::Tensor example_norms(std::size_t, const Batch& batch, Normalization) override {
    return at::ones({batch.size()}, at::kDouble);
  }
  std::vector<std::string> parameters(std::size_t) const override { return {}; }
  /// Forward passes alone, a third of a gradient.
  MethodCost cost(std::size_t stage, std::int64_t query_block) const override {
    const auto one = representations(chain_[stage], chain_[stage].objective.data().batch(0, 1), cosine_);
    const auto bytes = static_cast<double>(one.numel()) * static_cast<double>(one.element_size());
    return {.passes_a_block = 1. / 3,
            .gradients_a_query = 1. / 3,
            .bytes = bytes * static_cast<double>(query_block),
            .bytes_a_query = bytes};
  }

 private:
  const Chain& chain_;
  bool cosine_;
};

class RepSim : public Attributor {
 public:
  explicit RepSim(RepSimOptions options) : options_(std::move(options)) {}
  bool uses_curvature() const override { return false; }
  Claim claim() const override { return Claim::kOrder; }
  std::unique_ptr<ScoreSource> prepare(const Chain& chain, const InverseProblem&) const override {
    return std::make_unique<RepSimSource>(chain, options_);
  }

 private:
  RepSimOptions options_;
};

}  // namespace

WHENCE_METHOD(Attributor, rep_sim, RepSim, RepSimOptions)

}  // namespace whence
