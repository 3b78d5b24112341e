#pragma once
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/core/tensors.h"
#include "whence/models/loss.h"
#include "whence/models/model.h"
#include "whence/models/ops.h"

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

/// Gradients of each example's loss by a backward pass of its own: [count, P]. `one(b)` is the batch of the b-th alone.
template <class One>
at::Tensor loop_gradients(const Model& model, const Loss& loss, const ParameterSet& theta, std::int64_t count,
                          const One& one) {
  TensorList rows;
  for (std::int64_t b = 0; b < count; ++b) {
    const auto tracked = leaves(theta.values());
    const auto batch = one(b);
    rows.push_back(flatten(gradient(loss.per_example(model.output(theta.with(tracked), batch), batch).sum(), tracked)));
  }
  return at::stack(rows);
}
/// The same of a batch of numbers.
inline at::Tensor loop_gradients(const Model& model, const Loss& loss, const ParameterSet& theta, const Batch& batch) {
  return loop_gradients(model, loss, theta, batch.size(), [&](std::int64_t b) { return slice(batch, b, 1); });
}

/// Uses one convolution and one linear layer twice each, the convolution with strides of two kinds.
class TwiceUsed : public Model {
 public:
  ParameterSet initial(at::IntArrayRef, std::int64_t, Random& random) const override {
    ParameterSet theta;
    add_layer(theta, "body.0", {2, 2, 3, 3}, "tanh", random);
    add_layer(theta, "head", {3, 3}, "", random);
    return theta;
  }
  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    auto x = inputs_like(theta, batch.inputs);
    x = activation("tanh", convolution(theta, "body.0", x, /*stride=*/2, /*padding=*/1, tape));
    x = activation("tanh", convolution(theta, "body.0", x, /*stride=*/1, /*padding=*/0, tape));
    x = x.flatten(1).narrow(1, 0, 3);
    return linear(theta, "head", at::tanh(linear(theta, "head", x, tape)), tape);
  }
};

/// Whether a method has nothing to be made of by default, and says which option is missing: the path of a model's
/// files.
template <class Method>
bool needs_a_path(const Method& method) {
  try {
    method.make("");
    return false;
  } catch (const InvalidArgument& error) {
    REQUIRE(std::string(error.what()).find(" is missing") != std::string::npos);
    return true;
  }
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
    } else if (!needs_a_path(method)) {  // those that do have tests of their own
      specs.push_back(name);             // a new model must work with its defaults
    }
  }
  return specs;
}

}  // namespace whence::test
