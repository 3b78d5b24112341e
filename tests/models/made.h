#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "whence/core/random.h"
#include "whence/models/loss.h"
#include "whence/models/model.h"

namespace whence::test {

/// Six images of 5 x 6 pixels, for three outputs.
inline const std::vector<std::int64_t> kImage = {5, 6};
inline constexpr std::int64_t kOutputs = 3, kExamples = 6;

/// Targets that suit `loss`.
inline Batch made_batch(const Loss& loss, std::uint64_t seed = 1, at::IntArrayRef image = kImage) {
  Random random(seed);
  auto shape = image.vec();
  shape.insert(shape.begin(), kExamples);
  Batch batch;
  batch.inputs = random.normal(shape);
  batch.targets = loss.wants() == TargetKind::kClasses ? random.uniform({kExamples}, 0, kOutputs).floor().to(at::kLong)
                  : loss.wants() == TargetKind::kProbabilities ? random.uniform({kExamples, kOutputs}, 0, 1)
                                                               : random.normal({kExamples, kOutputs});
  if (are_tokens(loss.wants())) {
    // as many predictions as examples, of which one has two and one none
    TokenLayout text;
    text.lengths = at::full({kExamples}, 2, at::kLong);
    text.predicted = at::arange(kExamples, at::kLong);
    text.predictions.owners = at::tensor({0, 0, 1, 2, 4, 5}, at::kLong);
    text.predictions.places = at::tensor({0, 1, 2, -1, 3, -1, -1, -1, 4, -1, 5, -1}, at::kLong).view({kExamples, 2});
    batch.targets = random.uniform({kExamples}, 0, kOutputs).floor().to(at::kLong);
    batch.text = text;
  }
  batch.ids = at::arange(kExamples, at::kLong);
  batch.rows = batch.ids;
  return batch;
}

/// The model's parameters away from any special point: fresh ones plus noise.
inline ParameterSet made_parameters(const Model& model, at::IntArrayRef image = kImage) {
  Random random(7);
  const auto fresh = model.initial(image, kOutputs, random);
  TensorList values;
  for (const auto& t : fresh.values()) {
    values.push_back(t + 0.1 * random.normal(t.sizes()));
  }
  return fresh.with(values);
}

inline Batch slice(const Batch& batch, std::int64_t begin, std::int64_t length) {
  return {batch.inputs.narrow(0, begin, length), batch.targets.narrow(0, begin, length),
          batch.ids.narrow(0, begin, length), batch.rows.narrow(0, begin, length)};
}

/// Every registered model, small, with each of its words.
inline std::vector<std::string> every_model_spec() {
  std::vector<std::string> specs;
  for (const auto& method : methods<Model>()) {
    const std::string name(method.name);
    if (name == "linear") {
      specs.insert(specs.end(), {"linear", "linear:bias=false"});
    } else if (name == "mlp") {
      specs.insert(specs.end(), {"mlp:widths=4", "mlp:widths=5/4,activation=relu", "mlp:widths=5/4/3,activation=gelu"});
    } else if (name == "convnet") {
      specs.insert(specs.end(),
                   {"convnet:channels=3,activation=tanh,pool=avg", "convnet:channels=2/3,activation=gelu,dense=4",
                    "convnet:channels=2,kernel=5,activation=relu,pool=max"});
    } else if (name != "transformer" && name != "vit" && name != "exported") {  // which need files: tests of their own
      specs.push_back(name);  // a new model must work with its defaults
    }
  }
  return specs;
}

}  // namespace whence::test
