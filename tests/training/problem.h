#pragma once
#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "whence/training/optimizer.h"

namespace whence::test {

/// 24 examples of 4 random numbers, with 2 values or 3 classes each, whichever the loss wants.
inline Dataset made_dataset(const Loss& loss, at::ScalarType dtype = at::kDouble) {
  Random random(21);
  Dataset::Contents contents;
  contents.inputs = random.normal({24, 4});
  contents.ids = at::arange(24, at::kLong);
  if (loss.wants() == TargetKind::kClasses) {
    contents.targets = random.uniform({24}, 0, 3).floor().to(at::kLong);
    contents.classes = {"a", "b", "c"};
  } else if (loss.wants() == TargetKind::kProbabilities) {
    contents.targets = random.uniform({24, 2}, 0, 1);
  } else {
    contents.targets = random.normal({24, 2}) + contents.inputs.narrow(1, 0, 2);
  }
  return Dataset(std::move(contents)).to(dtype, at::kCPU);
}

/// A stage that trains everything, starting where the model starts.
inline Objective made_objective(const std::string& model_spec, const std::string& loss_spec, double weight_decay = 0.1,
                                at::ScalarType dtype = at::kDouble) {
  const std::shared_ptr<const Model> model = create<Model>(model_spec);
  const std::shared_ptr<const Loss> loss = create<Loss>(loss_spec);
  const auto data = made_dataset(*loss, dtype);
  Random random(5);
  const auto fresh = model->initial(data.input_shape(), data.outputs(), random).to(dtype, at::kCPU);
  return Objective(model, loss, create<Tuning>("full"), data, weight_decay, fresh, {}, 10);
}

inline TrainingState fresh_state(const Objective& objective) { return {clone(objective.trained().values()), 0, {}}; }

/// The minimum of the linear model's weighted, decayed squared error with a bias: {weight, bias}.
inline TensorList ridge_minimum(const Objective& objective, const at::Tensor& weights) {
  const auto& data = objective.data();
  const auto batch = data.batch(0, data.size());
  const auto x = at::cat({batch.inputs, at::ones({data.size(), 1}, at::kDouble)}, 1);
  const auto weighted = x.t() * (weights / data.size());
  const auto system = at::mm(weighted, x) + objective.weight_decay() * at::eye(x.size(1), at::kDouble);
  const auto solution = at::linalg_solve(system, at::mm(weighted, batch.targets)).t();
  return {solution.narrow(1, 0, x.size(1) - 1).contiguous(), solution.select(1, x.size(1) - 1).contiguous()};
}

}  // namespace whence::test
