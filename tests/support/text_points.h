#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "support/scratch.h"
#include "whence/curvature/curvature.h"

namespace whence::test {

/// A transformer of less than three hundred parameters, by its config.json: what a family does otherwise than others is
/// in one of these.
struct TinyTransformer {
  std::string name;
  std::string loss;
  std::string config;
};
inline const std::vector<TinyTransformer> kTinyTransformers = {
    {"gpt2: the head is the embedding, blocks' weights are [in, out], one layer for query, key and value", "next-token",
     R"({"model_type": "gpt2", "vocab_size": 5, "n_positions": 4, "n_embd": 4, "n_layer": 1, "n_head": 2, "n_inner": 3})"},
    {"llama: a head of its own, rotary positions, heads share keys, a gate, norms without bias", "next-token",
     R"({"model_type": "llama", "vocab_size": 5, "max_position_embeddings": 4, "hidden_size": 4,
         "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 3,
         "attention_bias": true})"},
    {"gpt-neox: attention and mlp side by side, queries, keys and values by head", "next-token:mean=true",
     R"({"model_type": "gpt_neox", "vocab_size": 5, "max_position_embeddings": 4, "hidden_size": 4, "rotary_pct": 1,
         "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 3})"},
    {"bert: sees both ways, norms after the sums, hidden tokens, a tied head behind a layer of its own", "masked-token",
     R"({"model_type": "bert", "vocab_size": 5, "max_position_embeddings": 4, "hidden_size": 4, "num_hidden_layers": 1,
         "num_attention_heads": 2, "intermediate_size": 3, "layer_norm_eps": 1e-3})"},
};

/// Four texts of 3, 4, 1 and 2 tokens, some of them repeated, which share three rows of a batch. The short one predicts
/// nothing where the next token is asked for.
inline Dataset tiny_texts(bool masked) {
  Dataset::Contents contents;
  auto& texts = contents.texts;
  texts.tokens = at::tensor({3, 0, 3, 1, 1, 4, 2, 2, 0, 4}, at::kInt);
  texts.begins = at::tensor({0, 3, 7, 8}, at::kLong);
  texts.lengths = at::tensor({3, 4, 1, 2}, at::kLong);
  texts.targets = masked ? at::tensor({-1, 2, -1, 0, -1, 3, -1, 4, -1, 1}, at::kInt)
                         : at::tensor({0, 3, -1, 1, 4, 2, -1, -1, 4, -1}, at::kInt);
  texts.vocabulary = 5;
  contents.predicted = masked ? TargetKind::kMaskedTokens : TargetKind::kNextTokens;
  contents.ids = at::arange(4, at::kLong);
  return Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
}

/// Trains some of a model's parameters and has others from its parent; the rest stays as it is.
class PartTuning : public Tuning {
 public:
  PartTuning(ParameterSet model, std::vector<std::string> trained)
      : model_(std::move(model)), trained_(std::move(trained)) {}
  ParameterSet trainable(const TuningStart&, const Random&) const override { return part(trained_); }
  ParameterSet merge(const ParameterSet& parent, const ParameterSet& tuned) const override {
    TensorList values;
    for (const auto& name : model_.names()) {
      values.push_back(tuned.contains(name)    ? tuned.at(name)
                       : parent.contains(name) ? parent.at(name)
                                               : model_.at(name).to(tuned.values().front().scalar_type()));
    }
    return model_.with(std::move(values));
  }
  at::Tensor penalty(const ParameterSet&, const ParameterSet& tuned, double weight_decay) const override {
    auto total = at::zeros({}, tuned.values().front().options());
    for (const auto& value : tuned.values()) {
      total = total + 0.5 * weight_decay * value.square().sum();
    }
    return total;
  }
  bool merge_uses_parent() const override { return true; }
  bool remembers_parent() const override { return true; }

  ParameterSet part(const std::vector<std::string>& names) const {
    ParameterSet out;
    for (const auto& name : names) {
      out.add(name, model_.at(name));
    }
    return out;
  }

 private:
  ParameterSet model_;
  std::vector<std::string> trained_;
};

inline constexpr double kTextDecay = 0.05;

/// A tiny transformer away from any special point, and its two points: all that it has is trained; or every second of
/// its linear layers, the others coming from the parent.
class TextPoints {
 public:
  explicit TextPoints(const TinyTransformer& tiny) : loss_(create<Loss>(tiny.loss)) {
    folder_.put("config.json", tiny.config);
    model_ = create<Model>("transformer:directory=" + folder_.folder().string());
    data_ = tiny_texts(loss_->wants() == TargetKind::kMaskedTokens);
    auto draws = Random(7);
    const auto fresh = model_->initial({}, 0, draws);
    TensorList values;
    for (const auto& value : fresh.values()) {
      values.push_back(value + 0.4 * draws.normal(value.sizes()));
    }
    theta_ = fresh.with(std::move(values));
  }

  CurvaturePoint everything() const { return point(create<Tuning>("full"), theta_, {}); }
  CurvaturePoint second_layers() const {
    std::vector<std::string> trained, others;
    bool odd = false;
    for (const auto& [weight, bias] : linear_layers()) {
      auto& names = odd ? others : trained;
      names.push_back(weight);
      if (!bias.empty()) {
        names.push_back(bias);
      }
      odd = !odd;
    }
    const auto tuning = std::make_shared<PartTuning>(theta_, trained);
    return point(tuning, tuning->part(trained), tuning->part(others));
  }
  std::vector<CurvaturePoint> both() const { return {everything(), second_layers()}; }

 private:
  CurvaturePoint point(std::shared_ptr<const Tuning> tuning, const ParameterSet& trained,
                       const ParameterSet& parent) const {
    return {Objective(model_, loss_, std::move(tuning), data_, kTextDecay, trained, parent, 100), trained.values(),
            parent.values()};
  }
  /// Weights and biases of those whose weight is used nowhere else.
  std::vector<std::pair<std::string, std::string>> linear_layers() const {
    Tape tape;
    model_->output(theta_, data_.batch(0, 1), &tape);
    std::vector<std::pair<std::string, std::string>> out;
    for (const auto& entry : tape.entries) {
      const auto uses = std::count_if(tape.entries.begin(), tape.entries.end(),
                                      [&](const TapeEntry& other) { return other.weight == entry.weight; });
      if (entry.kind == TapeEntry::Kind::kLinear && uses == 1) {
        out.emplace_back(entry.weight, entry.bias);
      }
    }
    return out;
  }

  Scratch folder_;
  std::shared_ptr<const Loss> loss_;
  std::shared_ptr<const Model> model_;
  Dataset data_;
  ParameterSet theta_;
};

}  // namespace whence::test
