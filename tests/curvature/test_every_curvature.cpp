// The contract that every registered curvature keeps: equal to its dense matrix, built independently; symmetric,
// linear, counted, the same for every batch size. A new family is tested here by its registration line, once its dense
// truth stands in `truth_of`.
#include <torch/csrc/autograd/autograd.h>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/curvature/curvature.h"

using namespace whence;
using test::relative_error;
using test::Tolerance;

namespace {

/// sum_i w_i J_i' (d^2 loss / d output^2) J_i in (theta, parent), from one backward pass an output; the penalty's
/// Hessian beside it.
at::Tensor dense_gauss_newton(const Objective& objective, const TensorList& theta, const TensorList& parent) {
  auto all = leaves(theta);
  const auto from = leaves(parent);
  const auto point = all;
  all.insert(all.end(), from.begin(), from.end());
  auto total =
      test::dense_hessian(objective.with_weights(at::zeros({objective.data().size()}, at::kDouble)), theta, parent);
  const auto batch = objective.data().batch(0, objective.data().size());
  const auto weights = objective.batch_weights(batch);
  for (std::int64_t i = 0; i < batch.size(); ++i) {
    const auto one = objective.data().batch(i, i + 1);
    const auto output = objective.output(point, from, one);
    TensorList jacobian, curvature;
    const auto free = output.detach().requires_grad_(true);
    const auto slope = gradient(objective.loss().per_example(free, one).sum(), {free}, true)[0].flatten();
    for (std::int64_t c = 0; c < output.numel(); ++c) {
      jacobian.push_back(flatten(gradient(output.flatten()[c], all, false, true)));
      curvature.push_back(gradient(slope[c], {free}, false, true)[0].flatten());
    }
    const auto j = at::stack(jacobian);
    total = total + weights[i] * j.t().mm(at::stack(curvature)).mm(j);
  }
  return total.detach();
}

at::Tensor truth_of(std::string_view name, const Stage& stage) {
  return name == "hessian" ? test::dense_hessian(stage.objective, stage.theta, stage.parent)
                           : dense_gauss_newton(stage.objective, stage.theta, stage.parent);
}

const std::vector<std::vector<test::ToyStage>> kChains{
    {{"full", "squared-error"}, {"full:proximity=0.3", "cross-entropy"}},
    {{"full", "cross-entropy"}, {"head", "squared-error"}},
};

}  // namespace

TEST_SUITE_BEGIN("curvature");

TEST_CASE("every curvature equals its dense matrix, is symmetric, linear and counted") {
  for (const auto& method : methods<Curvature>()) {
    const auto curvature = create<Curvature>(method.name);
    for (const auto& kinds : kChains) {
      CAPTURE(method.name);
      const auto chain = test::toy_chain(kinds);
      for (const auto& stage : chain) {
        CAPTURE(stage.name);
        const auto a = curvature->operator_at(stage.objective, stage.theta, stage.parent);
        const auto n = a->size();
        const auto dense = truth_of(method.name, stage).narrow(0, 0, n).narrow(1, 0, n);
        const auto x = Random(3).normal({4, n});
        const auto image = a->apply(x);
        CHECK(a->products() == 4);
        CHECK(relative_error(image, x.mm(dense)) < Tolerance::kDense);
        CHECK(relative_error(image.mm(x.t()), x.mm(image.t())) < Tolerance::kSameAlgebra);
        CHECK(relative_error(a->apply(x[0].unsqueeze(0) + 2 * x[1].unsqueeze(0)),
                             (image[0] + 2 * image[1]).unsqueeze(0)) < Tolerance::kSameAlgebra);
        CHECK(at::equal(a->apply(x), image));
      }
    }
  }
}

TEST_CASE("every curvature is the whole stage's mean, whatever the batch size, graphs kept or rebuilt") {
  const auto whole = test::toy_chain({{"full", "cross-entropy"}})[0];
  for (const auto& method : methods<Curvature>()) {
    CAPTURE(method.name);
    const auto x = Random(4).normal({2, count_entries(whole.theta)});
    const auto expected = create<Curvature>(method.name)->operator_at(whole.objective, whole.theta, {})->apply(x);
    for (const std::int64_t batch : {1, 5, 12}) {
      for (const char* bytes : {"0", "1e9"}) {
        const auto spec = std::string(method.name) + ":graph-bytes=" + bytes;
        const auto a = create<Curvature>(spec)->operator_at(whole.objective.with_batch_size(batch), whole.theta, {});
        CHECK(relative_error(a->apply(x), expected) < Tolerance::kSameAlgebra);
      }
    }
  }
}

TEST_CASE("every curvature's mixed product equals the dense cross block, and is zero where nothing is remembered") {
  for (const auto& method : methods<Curvature>()) {
    for (const auto& kinds : kChains) {
      CAPTURE(method.name);
      const auto chain = test::toy_chain(kinds);
      const auto& stage = chain[1];
      const auto n = count_entries(stage.theta), p = count_entries(stage.parent);
      const auto v = Random(5).normal({3, n});
      const auto dense = truth_of(method.name, stage).narrow(0, n, p).narrow(1, 0, n);
      const auto mixed = create<Curvature>(method.name)
                             ->mixed_product(stage.objective.with_batch_size(5), stage.theta, stage.parent, v);
      CHECK(relative_error(mixed, v.mm(dense.t())) < Tolerance::kDense);
    }
    const auto forgetful = test::toy_chain({{"full"}, {"full"}})[1];
    const auto v = Random(5).normal({1, count_entries(forgetful.theta)});
    CHECK(create<Curvature>(method.name)
              ->mixed_product(forgetful.objective, forgetful.theta, forgetful.parent, v)
              .abs()
              .max()
              .item<double>() == 0);
  }
}

TEST_CASE("the finite-difference mixed product agrees with double backward") {
  for (const auto& kinds : kChains) {
    const auto stage = test::toy_chain(kinds)[1];
    const auto v = Random(6).normal({2, count_entries(stage.theta)});
    const auto exact = create<Curvature>("hessian")->mixed_product(stage.objective, stage.theta, stage.parent, v);
    const auto differences = create<Curvature>("hessian:mixed=finite-difference")
                                 ->mixed_product(stage.objective, stage.theta, stage.parent, v);
    CHECK(relative_error(exact, differences) < Tolerance::kDifferences);
  }
}

TEST_CASE("sampled products average to the full product") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  for (const auto& method : methods<Curvature>()) {
    CAPTURE(method.name);
    const auto a = create<Curvature>(method.name)->operator_at(stage.objective, stage.theta, {});
    const auto x = Random(7).normal({1, a->size()});
    const auto expected = a->apply(x);
    auto draws = Random(8);
    constexpr int kDraws = 2000;
    auto sum = at::zeros_like(x), squares = at::zeros_like(x);
    for (int i = 0; i < kDraws; ++i) {
      const auto sample = a->apply_sampled(x, 3, draws);
      sum += sample;
      squares += sample.square();
    }
    const auto mean = sum / kDraws;
    const auto error = ((squares / kDraws - mean.square()) / kDraws).clamp_min(1e-30).sqrt();
    CHECK(((mean - expected).abs() / error).max().item<double>() <
          5);  // the largest of 24 standard normals; fixed seed
  }
}

TEST_CASE("eigenvalue estimates: trace by random signs, largest by power steps") {
  const auto stage = test::toy_chain({{"full", "cross-entropy"}})[0];
  const auto a = create<Curvature>("gauss-newton")->operator_at(stage.objective, stage.theta, {});
  const auto n = a->size();
  const auto values = std::get<0>(at::linalg_eigh(a->apply(at::eye(n, at::kDouble))));
  CHECK(largest_eigenvalue(*a, 200, Random(1)) == doctest::Approx(values[n - 1].item<double>()).epsilon(1e-6));
  CHECK(mean_eigenvalue(*a, 4000, Random(1)) == doctest::Approx(values.mean().item<double>()).epsilon(0.02));
}

TEST_CASE("a block of another width is refused with both shapes") {
  const auto stage = test::toy_chain({{"full"}})[0];
  const auto a = create<Curvature>("hessian")->operator_at(stage.objective, stage.theta, {});
  CHECK_THROWS_WITH_AS(a->apply(at::zeros({2, 5}, at::kDouble)), doctest::Contains("got [2, 5]"), InvalidArgument);
}

TEST_SUITE_END();
