// Layers that an exported program has and the models at home have not: convolutions of groups, transposed ones, and
// cells that are used at every step. Their truth is made by autograd on the same network written with ATen.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "whence/curvature/curvature.h"
#include "whence/data/safetensors.h"
#include "whence/stages/stage.h"

namespace whence::test {
namespace {

constexpr double kDecay = 0.05;

/// A stage of a fixture's weights on its own inputs, with values.
Stage fixture_stage(const std::string& name) {
  const auto file = std::string(WHENCE_TESTS) + "/models/exported/" + name;
  const auto told = read_safetensors(file + ".safetensors");
  Dataset::Contents contents;
  contents.inputs = told.at("inputs.x");
  contents.targets = Random(4).normal({contents.inputs.size(0), told.at("output").size(1)});
  contents.ids = at::arange(contents.inputs.size(0));
  return begin_stage({.name = "stage",
                      .model = create<Model>("exported:file=" + file + ".pt2"),
                      .loss = create<Loss>("squared-error"),
                      .data = Dataset(std::move(contents)).to(at::kDouble, at::kCPU),
                      .weight_decay = kDecay},
                     {}, Random(1));
}

/// The gradients of the examples' losses, [N, P], each by a pass of its own.
at::Tensor example_gradients(const Stage& stage) {
  const auto theta = leaves(stage.theta);
  TensorList rows;
  for (std::int64_t i = 0; i < stage.objective.data().size(); ++i) {
    const auto one = stage.objective.data().batch(i, i + 1);
    rows.push_back(flatten(gradient(stage.objective.example_losses(theta, stage.parent, one).sum(), theta)));
  }
  return at::stack(rows).detach();
}

CurvaturePoint at_stage(const Stage& stage) { return {stage.objective, stage.theta, stage.parent}; }

/// Where a parameter stands in the flat vector.
std::int64_t offset_of(const Stage& stage, const std::string& wanted) {
  std::int64_t out = 0;
  for (const auto& name : stage.objective.trained().names()) {
    if (name == wanted) {
      return out;
    }
    out += stage.objective.trained().at(name).numel();
  }
  FAIL("no parameter " << wanted);
  return 0;
}

/// The entries begin .. begin + count - 1 of an operator, as a matrix.
at::Tensor dense_block(const LinearOperator& a, std::int64_t begin, std::int64_t count) {
  const auto unit = at::eye(a.size(), at::kDouble).narrow(0, begin, count);
  return a.apply(unit).narrow(1, begin, count);
}

/// kfac's block of one matrix from what it saw at T places, [N, T, inputs], and its signals there, [N, T, outputs].
at::Tensor kronecker(const at::Tensor& inputs, const at::Tensor& signals) {
  const auto n = static_cast<double>(inputs.size(0)), places = static_cast<double>(inputs.size(1));
  const auto a = inputs.flatten(0, 1), g = signals.flatten(0, 1);
  return at::kron(g.t().mm(g) / (n * places), a.t().mm(a) / n);
}

/// What grouped.pt2 computes (make_fixtures.py), with what goes into its depthwise convolution and comes out of it.
struct Depthwise {
  at::Tensor input, output, result;
};
Depthwise run_grouped(const ParameterSet& p, const at::Tensor& x) {
  Depthwise out;
  out.input = at::conv2d(x, p.at("a.weight"), p.at("a.bias"), 1, 1).tanh();
  out.output = at::conv2d(out.input, p.at("depth.weight"), {}, 2, 1, 1, 4);
  const auto wide = at::conv2d(out.output.tanh(), p.at("wide.weight"), p.at("wide.bias"), 1, at::IntArrayRef{2, 1},
                               at::IntArrayRef{2, 1}, 2);
  const auto line =
      at::conv1d(wide.tanh().flatten(2), p.at("line.weight"), p.at("line.bias"), 1, at::IntArrayRef{0}, 1, 2);
  out.result = at::linear(line.tanh().mean(2), p.at("fc.weight"), p.at("fc.bias"));
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("curvature");

TEST_CASE(
    "groups and norms: rows of the empirical Fisher are the examples' gradients, and ekfac has their squares in all") {
  for (const std::string name : {"grouped", "lstm", "padded", "spelled", "residual"}) {
    CAPTURE(name);
    const auto stage = fixture_stage(name);
    const auto rows = example_gradients(stage);
    const auto dense = rows.t().mm(rows) / static_cast<double>(rows.size(0));
    const auto penalty = kDecay * at::eye(dense.size(0), at::kDouble);
    const auto fisher = create<Curvature>("empirical-fisher")->operator_at(at_stage(stage));
    CHECK(relative_error(dense_block(*fisher, 0, dense.size(0)), dense + penalty) < 1e-10);
    const auto ekfac = create<Curvature>("ekfac:labels=data")->operator_at(at_stage(stage));
    const auto trace = dense_block(*ekfac, 0, dense.size(0)).trace() - penalty.trace();
    CHECK(relative_error(trace, dense.trace()) < 1e-10);
  }
}

TEST_CASE("groups: kfac has a pair of factors for each group of a convolution") {
  const auto stage = fixture_stage("grouped");
  const auto& data = stage.objective.data();
  const auto batch = data.batch(0, data.size());
  auto passed = run_grouped(stage.objective.trained().with(leaves(stage.theta)), batch.inputs);
  const auto losses = create<Loss>("squared-error")->per_example(passed.result, batch);
  const auto signal = gradient(losses.sum(), TensorList{passed.output})[0].flatten(2);  // [N, 4, T]
  const auto seen = at::im2col(passed.input.detach(), {3, 3}, {1, 1}, {1, 1}, {2, 2}).unflatten(1, {4, 9});
  const auto kfac = create<Curvature>("kfac:labels=data")->operator_at(at_stage(stage));
  const auto begin = offset_of(stage, "depth.weight");
  const auto block = dense_block(*kfac, begin, 36);
  auto expected = kDecay * at::eye(36, at::kDouble);
  for (std::int64_t g = 0; g < 4; ++g) {
    expected.narrow(0, 9 * g, 9)
        .narrow(1, 9 * g, 9)
        .add_(kronecker(seen.select(1, g).transpose(1, 2), signal.narrow(1, g, 1).transpose(1, 2)));
  }
  CHECK(relative_error(block, expected) < 1e-10);
}

TEST_CASE("groups: a transposed convolution's factors are of what each place sees and of all that it puts out") {
  const auto stage = fixture_stage("transposed");
  const auto rows = example_gradients(stage);
  const auto n = static_cast<double>(rows.size(0));
  const auto ekfac = create<Curvature>("ekfac:labels=data")->operator_at(at_stage(stage));
  for (const std::string name : {"image.weight", "line.weight", "solid.weight", "image.bias"}) {
    CAPTURE(name);
    const auto begin = offset_of(stage, name), count = stage.objective.trained().at(name).numel();
    const auto squares = rows.narrow(1, begin, count).square().sum() / n;
    const auto trace = dense_block(*ekfac, begin, count).trace() - kDecay * static_cast<double>(count);
    CHECK(relative_error(trace, squares) < 1e-10);
  }
}

TEST_SUITE_END();

}  // namespace whence::test
