#pragma once
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <memory>
#include <string>
#include <vector>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/models/language_model.h"
#include "whence/models/model.h"
#include "whence/training/objective.h"
#include "whence/tuning/tuning.h"

namespace whence::test {

/// A transformer with room before its texts, by its config.json; {0} is the vocabulary, {1} the blocks.
struct RoomyTransformer {
  std::string name, loss, config;
};
inline const std::vector<RoomyTransformer> kRoomyTransformers = {
    {"gpt2", "next-token",
     R"({{"model_type": "gpt2", "vocab_size": {0}, "n_positions": 9, "n_embd": 4, "n_layer": {1}, "n_head": 2,
          "n_inner": 3}})"},
    {"llama: rotary positions, heads share keys", "next-token",
     R"({{"model_type": "llama", "vocab_size": {0}, "max_position_embeddings": 9, "hidden_size": 8,
          "num_hidden_layers": {1}, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 3}})"},
    {"mistral: a window", "next-token",
     R"({{"model_type": "mistral", "vocab_size": {0}, "max_position_embeddings": 9, "hidden_size": 4,
          "num_hidden_layers": {1}, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 3,
          "sliding_window": 2}})"},
    {"bert: sees both ways", "masked-token",
     R"({{"model_type": "bert", "vocab_size": {0}, "max_position_embeddings": 9, "hidden_size": 4,
          "num_hidden_layers": {1}, "num_attention_heads": 2, "intermediate_size": 3, "layer_norm_eps": 1e-3}})"},
};

/// Four texts of 3, 4, 1 and 2 tokens of 0 to 4, behind `before` tokens 5, 6, … each, which are predicted nowhere. They
/// share three rows of a batch. With `classes` each is one of three instead.
inline Dataset roomy_texts(bool masked, bool classes, std::int64_t before = 0) {
  const std::vector<std::vector<int>> tokens{{3, 0, 3}, {1, 1, 4, 2}, {2}, {0, 4}};
  const std::vector<std::vector<int>> hidden{{-1, 2, -1}, {0, -1, 3, -1}, {4}, {-1, 1}};
  std::vector<int> all, targets;
  std::vector<std::int64_t> begins, lengths;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    begins.push_back(static_cast<std::int64_t>(all.size()));
    for (int p = 0; p < before; ++p) {
      all.push_back(5 + p);
      targets.push_back(-1);
    }
    for (std::size_t t = 0; t < tokens[i].size(); ++t) {
      all.push_back(tokens[i][t]);
      targets.push_back(masked ? hidden[i][t] : t + 1 < tokens[i].size() ? tokens[i][t + 1] : -1);
    }
    lengths.push_back(static_cast<std::int64_t>(all.size()) - begins.back());
  }
  Dataset::Contents contents;
  auto& texts = contents.texts;
  texts.tokens = at::tensor(all, at::kInt);
  texts.begins = at::tensor(begins, at::kLong);
  texts.lengths = at::tensor(lengths, at::kLong);
  texts.vocabulary = 5 + before;
  if (classes) {
    contents.targets = at::tensor({0, 2, 1, 0}, at::kLong);
    contents.classes = {"a", "b", "c"};
  } else {
    texts.targets = at::tensor(targets, at::kInt);
    contents.predicted = masked ? TargetKind::kMaskedTokens : TargetKind::kNextTokens;
  }
  contents.ids = at::tensor({3, 8, 2, 11}, at::kLong);
  return Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
}

/// A model away from any special point, its texts, and tunings of it: `parent` is its body, the head is new.
struct Roomy {
  explicit Roomy(const RoomyTransformer& roomy, bool classes = false, std::int64_t blocks = 2,
                 std::int64_t vocabulary = 5)
      : loss(create<Loss>(classes ? "cross-entropy" : roomy.loss)),
        data(roomy_texts(roomy.loss == "masked-token", classes, vocabulary - 5)) {
    folder.put("config.json", fmt::format(fmt::runtime(roomy.config), vocabulary, blocks));
    model = create<Model>("transformer:directory=" + folder.folder().string());
    Random draws(7);
    const auto declared = model->initial({}, data.head_outputs(), draws);
    TensorList values;
    for (const auto& value : declared.values()) {
      values.push_back(value + 0.4 * draws.normal(value.sizes()));
    }
    fresh = declared.with(std::move(values));
    parent = model->head().body(fresh);
  }

  ParameterSet start(const Tuning& tuning) const { return start(tuning, parent); }
  ParameterSet start(const Tuning& tuning, const ParameterSet& body) const {
    const auto pass = [&] {
      Tape tape;
      model->output(body.join(model->head().of(fresh)), data.batch(0, 1), &tape);
      return tape;
    };
    return tuning.trainable({fresh, body, model->head(), pass}, Random(2));
  }
  ParameterSet tuned(const std::string& spec) const {
    const auto tuning = create<Tuning>(spec);
    return tuning->merge(parent, start(*tuning));
  }

  Scratch folder;
  std::unique_ptr<Loss> loss;
  Dataset data;
  std::unique_ptr<Model> model;
  ParameterSet fresh, parent;
};

/// [B, P]: each example's gradient by a backward pass of its own, over a batch with the others.
inline at::Tensor example_gradients(const Roomy& roomy, const ParameterSet& theta, const Batch& batch) {
  const auto tracked = leaves(theta.values());
  const auto losses = roomy.loss->per_example(roomy.model->output(theta.with(tracked), batch), batch);
  TensorList rows;
  for (std::int64_t b = 0; b < batch.size(); ++b) {
    rows.push_back(flatten(gradient(losses[b], tracked, false, true)));
  }
  return at::stack(rows);
}

}  // namespace whence::test
