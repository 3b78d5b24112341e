#pragma once
#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <vector>

#include "whence/data/dataset.h"
#include "whence/data/safetensors.h"
#include "whence/models/language_model.h"
#include "whence/models/loss.h"
#include "whence/models/model.h"

namespace whence::test {

/// Tiny random models of every family with what transformers computes with them: tests/models/make_checkpoints.py.
inline std::filesystem::path checkpoint(const std::string& name) {
  return std::filesystem::path(WHENCE_TESTS) / "models/checkpoints" / name;
}

enum class Predicts { kTheLoss, kEverywhere };

/// The examples that expected.safetensors is about. kEverywhere: an output at every token, against target 0.
inline Dataset texts_of(const ParameterSet& expected, std::int64_t vocabulary, Predicts predicts) {
  const auto tokens = expected.at("tokens"), real = expected.at("mask").to(at::kBool);
  Dataset::Contents contents;
  auto& texts = contents.texts;
  contents.ids = at::arange(tokens.size(0), at::kLong);
  texts.lengths = real.sum(1);
  texts.begins = texts.lengths.cumsum(0) - texts.lengths;
  texts.tokens = tokens.masked_select(real).to(at::kInt);
  texts.vocabulary = vocabulary;
  if (predicts == Predicts::kEverywhere) {
    texts.targets = at::zeros_like(texts.tokens);
  } else if (expected.contains("labels")) {
    contents.targets = expected.at("labels");
    const auto classes = expected.at("logits").size(1);
    for (std::int64_t c = 0; c < classes; ++c) {
      contents.classes.push_back(std::to_string(c));
    }
  } else if (expected.contains("targets")) {
    texts.targets = expected.at("targets").masked_select(real).clamp_min(-1).to(at::kInt);
    contents.predicted = TargetKind::kMaskedTokens;
  } else {
    texts.targets = at::cat({texts.tokens.slice(0, 1), at::full({1}, -1, at::kInt)});
    texts.targets.index_fill_(0, texts.begins + texts.lengths - 1, -1);
  }
  return Dataset(std::move(contents));
}

/// A family's model with its weights and examples, in double.
struct LanguageCase {
  explicit LanguageCase(const std::string& name, Predicts predicts = Predicts::kTheLoss)
      : path(checkpoint(name)),
        model(create<Model>("transformer:directory=" + path.string())),
        language(dynamic_cast<const LanguageModel*>(model.get())),
        expected(read_safetensors(path / "expected.safetensors")),
        data(texts_of(expected, language->vocabulary(), predicts).to(at::kDouble, at::kCPU)) {
    Random random(1);
    const auto outputs = expected.contains("logits") ? data.head_outputs() : 2;  // a body alone gets a fresh head
    theta = model->initial({}, outputs, random).to(at::kDouble, at::kCPU);
    loss = create<Loss>(data.target_kind() == TargetKind::kClasses        ? "cross-entropy"
                        : data.target_kind() == TargetKind::kMaskedTokens ? "masked-token"
                                                                          : "next-token");
  }
  Batch all() const { return data.batch(0, data.size()); }

  std::filesystem::path path;
  std::unique_ptr<Model> model;
  const LanguageModel* language;
  ParameterSet expected;
  Dataset data;
  ParameterSet theta;
  std::unique_ptr<Loss> loss;
};

}  // namespace whence::test
