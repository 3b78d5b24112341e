#pragma once
// What every tuning is tried on: small models of each kind, on a parent away from any special point.
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "support/text_points.h"
#include "support/toy_chain.h"

namespace whence::test {

struct TuningCase {
  std::string model;       ///< A spec, or a transformer's config.json.
  std::string loss;        ///< Texts, where it predicts tokens.
  std::string inner;       ///< A body layer whose input a scale can be put on.
  std::string embeddings;  ///< Those that can be low-rank targets, joined by "+".

  bool texts() const { return !embeddings.empty(); }
};

/// The transformers have two blocks; their texts share rows of a batch and are padded. In the second no layer of the
/// body has a bias, so that what shifts cannot be folded.
inline const std::vector<TuningCase> kTuningCases = {
    {"mlp:widths=4/3,activation=tanh", "squared-error", "body.1", ""},
    {"convnet:channels=2/3,activation=tanh,pool=avg", "cross-entropy", "body.1", ""},
    {R"({"model_type": "gpt2", "vocab_size": 5, "n_positions": 4, "n_embd": 4, "n_layer": 2, "n_head": 2, "n_inner": 3})",
     "next-token", "mlp.c_proj", "wte+wpe"},
    {R"({"model_type": "llama", "vocab_size": 5, "max_position_embeddings": 8, "hidden_size": 4,
         "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 3})",
     "next-token:mean=true", "down_proj", "embed_tokens"},
};

/// Every registered tuning with its words, on such a model. Those of where a transformer's attention looks have tests
/// of their own, and change what a fresh one computes.
inline std::vector<std::string> every_tuning_spec(const TuningCase& on) {
  using Specs = std::vector<std::string>;
  const auto of_texts = [&](Specs specs) { return on.texts() ? specs : Specs(); };
  const auto of_numbers = [&](Specs specs) { return on.texts() ? Specs() : specs; };
  const std::vector<std::pair<std::string, Specs>> words{
      {"full", {"full", "full:proximity=0.3"}},
      {"head", of_numbers({"head"})},  // a model of texts here is all body
      {"lora", {"lora:rank=2,alpha=3", "lora:rank=1,rank-stabilised,dora"}},
      {"lora", of_texts({"lora:rank=2,targets=" + on.embeddings})},
      {"lora", of_numbers({"lora:rank=2,ranks=body.1:1,alphas=body.0:3,also=bias"})},
      {"hut", {"hut:rank=2"}},
      {"hira", {"hira:rank=2"}},
      {"hra", {"hra:rank=2", "hra:rank=4"}},
      {"ia3", {"ia3", "ia3:feedforward=" + on.inner}},
      {"adapter", {"adapter:width=2,activation=tanh"}},
      {"norm", of_texts({"norm"})},
      {"prefix", {}},
      {"prefix-simplex", {}},
      {"prompt", {}},
  };
  Specs out;
  for (const auto& method : methods<Tuning>()) {
    bool listed = false;
    for (const auto& [name, specs] : words) {
      if (name == method.name) {
        out.insert(out.end(), specs.begin(), specs.end());
        listed = true;
      }
    }
    if (!listed) {
      out.push_back(method.name);  // a new one must work with its defaults
    }
  }
  return out;
}

/// A case with its folder, and stages on it.
class TuningBench {
 public:
  explicit TuningBench(const TuningCase& on)
      : loss_(create<Loss>(on.loss)),
        ties_(on.model.find("gpt2") != std::string::npos),
        without_biases_(on.model.find("llama") != std::string::npos) {
    if (on.texts()) {
      folder_.put("config.json", on.model);
      model_ = create<Model>("transformer:directory=" + folder_.folder().string());
      data_ = tiny_texts(false);
      return;
    }
    model_ = create<Model>(on.model);
    data_ = toy_data(on.loss, 6, 5, Random(3));
    if (on.loss == "cross-entropy") {
      Dataset::Contents images;
      images.inputs = Random(4).normal({6, 5, 6});
      images.targets = at::tensor({0, 2, 1, 1, 0, 2}, at::kLong);
      images.classes = {"a", "b", "c"};
      images.ids = at::arange(6);
      data_ = Dataset(std::move(images)).to(at::kDouble, at::kCPU);
    }
  }

  const Model& model() const { return *model_; }
  std::string folder() const { return folder_.folder().string(); }
  bool ties() const { return ties_; }  ///< Whether the head of a vocabulary is the embedding.
  bool without_biases() const { return without_biases_; }
  const Loss& loss() const { return *loss_; }
  Dataset data(at::ScalarType dtype = at::kDouble) const { return data_.to(dtype, at::kCPU); }

  /// A stage before, with noise on its parameters, and one with the tuning as it begins.
  Chain begin(const std::string& tuning, at::ScalarType dtype = at::kDouble) const {
    Chain chain{begin_stage({.name = "before", .model = model_, .loss = loss_, .data = data(dtype)}, {}, Random(1))};
    chain[0].theta = moved(chain[0].theta, 0.3);
    chain.push_back(begin_stage({.name = "tuned",
                                 .model = model_,
                                 .loss = loss_,
                                 .tuning = create<Tuning>(tuning),
                                 .data = data(dtype),
                                 .weight_decay = 0.2},
                                chain, Random(2)));
    return chain;
  }
  Stage fresh(const std::string& tuning, at::ScalarType dtype = at::kDouble) const { return begin(tuning, dtype)[1]; }
  /// Away from where it begins.
  Stage tuned(const std::string& tuning) const {
    auto out = fresh(tuning);
    out.theta = moved(out.theta, 0.3);
    return out;
  }

  static TensorList moved(const TensorList& values, double by) {
    auto draws = Random(5);
    TensorList out;
    for (const auto& value : values) {
      out.push_back(value + (by * draws.normal(value.sizes())).to(value.options()));
    }
    return out;
  }

 private:
  Scratch folder_;
  std::shared_ptr<const Loss> loss_;
  std::shared_ptr<const Model> model_;
  Dataset data_;
  bool ties_, without_biases_;
};

/// Calls body(bench, spec) for every case and every tuning on it.
template <class Body>
void for_every_tuning(const Body& body) {
  for (const auto& on : kTuningCases) {
    const TuningBench bench(on);
    for (const auto& spec : every_tuning_spec(on)) {
      CAPTURE(on.model);
      CAPTURE(spec);
      body(bench, spec);
    }
  }
}

}  // namespace whence::test
