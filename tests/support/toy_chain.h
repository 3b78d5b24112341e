#pragma once
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "whence/stages/stage.h"

namespace whence::test {

/// What one stage of a toy chain is.
struct ToyStage {
  std::string tuning;
  std::string loss = "squared-error";
  double weight_decay = 0.05;
  std::int64_t examples = 12;
  bool trained = true;  ///< To its minimum; else as it begins.
};

/// `examples` random inputs [N, width], with values [N, 2] or 3 classes, whichever the loss wants.
inline Dataset toy_data(const std::string& loss, std::int64_t examples, std::int64_t width, Random random) {
  Dataset::Contents contents;
  contents.inputs = random.normal({examples, width});
  contents.ids = at::arange(examples) * 10;
  if (loss.starts_with("cross-entropy")) {
    contents.targets = random.uniform({examples}, 0, 3).floor().to(at::kLong);
    contents.classes = {"a", "b", "c"};
  } else if (loss == "binary-cross-entropy") {
    contents.targets = random.uniform({examples, 2}, 0, 2).floor();
  } else {
    contents.targets = random.normal({examples, 2});
  }
  return Dataset(std::move(contents)).to(at::kDouble, at::kCPU);
}

/// Trains a stage again to |gradient| <= 1e-12, from where it is.
inline void converge(Stage& stage) {
  const auto optimizer = create<Optimizer>("lbfgs:max-iterations=5000,tolerance=1e-13,history=50");
  TrainingState state{clone(stage.theta), 0, {}};
  optimizer->minimise(stage.objective, stage.parent, state, Random(0), {});
  stage.theta = detach(state.theta);
}

/// A chain of small stages on random data, in double.
inline Chain toy_chain(const std::vector<ToyStage>& stages, const std::shared_ptr<const Model>& net,
                       std::uint64_t seed = 1, std::int64_t width = 3, std::int64_t batch_size = 1000) {
  Chain chain;
  const Random random(seed);
  for (std::size_t k = 0; k < stages.size(); ++k) {
    const auto draws = random.stream("stage " + std::to_string(k));
    const auto data = toy_data(stages[k].loss, stages[k].examples, width, draws.stream("data"));
    chain.push_back(begin_stage({.name = "stage" + std::to_string(k),
                                 .model = net,
                                 .loss = create<Loss>(stages[k].loss),
                                 .tuning = create<Tuning>(stages[k].tuning),
                                 .data = data,
                                 .weight_decay = stages[k].weight_decay,
                                 .batch_size = batch_size},
                                chain, draws));
    if (stages[k].trained) {
      converge(chain.back());
    }
  }
  return chain;
}

/// Each such chain is made once in a run of the tests: training gives the same bits every time.
inline Chain toy_chain(const std::vector<ToyStage>& stages, const std::string& model = "mlp:widths=4,activation=tanh",
                       std::uint64_t seed = 1, std::int64_t width = 3, std::int64_t batch_size = 1000) {
  static std::map<std::string, Chain> made;
  auto key = fmt::format("{} {} {} {}", model, seed, width, batch_size);
  for (const auto& [tuning, loss, weight_decay, examples, trained] : stages) {
    key += fmt::format(" / {} {} {} {} {}", tuning, loss, weight_decay, examples, trained);
  }
  auto& held = made[key];
  if (held.empty()) {
    held = toy_chain(stages, create<Model>(model), seed, width, batch_size);
  }
  auto chain = held;
  for (auto& stage : chain) {  // a test may change what it is given
    stage.theta = clone(stage.theta);
    stage.parent = clone(stage.parent);
  }
  return chain;
}

/// One stage as it begins, on values.
inline Stage toy_stage(const std::string& model, double weight_decay, std::int64_t examples = 12) {
  const Random random(1);
  return begin_stage({.name = "stage",
                      .model = create<Model>(model),
                      .loss = create<Loss>("squared-error"),
                      .data = toy_data("squared-error", examples, 3, random.stream("data")),
                      .weight_decay = weight_decay},
                     {}, random.stream("start"));
}

/// The chain with one stage's examples weighted anew, that stage and all later ones trained to their minimum again.
inline Chain retrained(Chain chain, std::size_t stage, const at::Tensor& weights) {
  for (auto k = stage; k < chain.size(); ++k) {
    if (k > stage) {
      chain[k].parent = chain[k - 1].handed_on().values();
    }
    auto current = chain[k];
    if (k == stage) {
      current.objective = current.objective.with_weights(weights);
    }
    converge(current);
    chain[k].theta = current.theta;
  }
  return chain;
}

/// d^2 objective / d theta d (theta, parent) [P, P and entries of the parent], by differentiating each entry of theta's
/// gradient of the per-example sum: no code of the curvature room.
inline at::Tensor dense_hessian(const Objective& objective, const TensorList& theta, const TensorList& parent,
                                bool one_by_one = true) {
  auto point = leaves(theta);
  const auto from = leaves(parent);
  const auto batch = objective.data().batch(0, objective.data().size());
  const auto weights = objective.batch_weights(batch);
  auto value = objective.penalty(point, from);
  if (!one_by_one) {
    value = value + at::dot(weights, objective.example_losses(point, from, batch));
  }
  for (std::int64_t i = 0; one_by_one && i < batch.size(); ++i) {
    const auto one = objective.data().batch(i, i + 1);
    value = value + weights[i] * objective.example_losses(point, from, one).sum();
  }
  auto all = point;
  all.insert(all.end(), from.begin(), from.end());
  const auto g = flatten(gradient(value, point, true));
  TensorList rows;
  for (std::int64_t i = 0; i < g.numel(); ++i) {
    rows.push_back(flatten(gradient(g[i], all, false, true)));
  }
  return at::stack(rows);
}

}  // namespace whence::test
