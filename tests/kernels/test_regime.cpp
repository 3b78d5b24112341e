// The tests of the kernel regime, and the fine-tune as its kernel has it: against finite differences, refits and
// training.
#include <cmath>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/core/error.h"
#include "whence/kernels/kernel_blocks.h"
#include "whence/kernels/regime.h"
#include "whence/kernels/regime_fit.h"

using namespace whence;
using test::relative_error;

namespace {

/// What a fit is made of, of a kernel that no model has: symmetric or not.
struct Made {
  Dataset data;
  at::Tensor gram, start;
  std::shared_ptr<const Loss> loss;
  std::int64_t outputs;
};

Made made(const std::string& loss, bool symmetric, std::int64_t examples = 10) {
  Random draws(4);
  Made out;
  out.data = test::toy_data(loss, examples, 3, draws.stream("data"));
  out.outputs = out.data.outputs();
  const auto size = examples * out.outputs;
  const auto features = draws.normal({size, 2 * size}), others = symmetric ? features : features.sign();
  out.gram = features.mm(others.t()) / (2.0 * static_cast<double>(size));
  out.start = 0.3 * draws.normal({examples, out.outputs});
  out.loss = create<Loss>(loss);
  return out;
}

RegimeFit fit_of(const Made& made, double ridge = 0.05) {
  return {made.gram, made.start, made.data, *made.loss, ridge};
}

at::Tensor kept_rows(std::int64_t examples, std::int64_t without, std::int64_t outputs) {
  const auto all = at::arange(examples * outputs);
  return all.masked_select(all.div(outputs, "floor").ne(without));
}

/// A linear model of classes that starts at 0, which is linear in what it trains.
Stage linear_stage(double weight_decay, std::int64_t examples = 12) {
  const Random random(3);
  auto stage = begin_stage({.name = "fit",
                            .model = create<Model>("linear"),
                            .loss = create<Loss>("cross-entropy"),
                            .data = test::toy_data("cross-entropy", examples, 3, random.stream("data")),
                            .weight_decay = weight_decay},
                           {}, random.stream("start"));
  stage.theta = zeros_like(stage.theta);
  return stage;
}

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("the linearisation is the value and the slope along the fine-tune, batch by batch") {
  for (const char* tuning : {"full:proximity=0.3", "lora:rank=2"}) {
    CAPTURE(tuning);
    auto chain = test::toy_chain({{"full", "cross-entropy"}, {tuning, "cross-entropy"}});
    auto& stage = chain[1];
    stage.objective = stage.objective.with_batch_size(5);
    Random draws(8);
    TensorList start;
    for (const auto& value : stage.theta) {
      start.push_back(value + 0.3 * draws.normal(value.sizes()));
    }
    const auto data = test::toy_data("cross-entropy", 7, 3, Random(5));
    const auto found = linearise(stage.objective, start, stage.theta, stage.parent, data);
    const auto at_step = [&](double step) {
      TensorList theta;
      for (std::size_t i = 0; i < start.size(); ++i) {
        theta.push_back(start[i] + step * (stage.theta[i] - start[i]));
      }
      return stage.objective.output(theta, stage.parent, data.batch(0, 7)).detach();
    };
    constexpr double kStep = 1e-5;
    CHECK(relative_error(found.start, at_step(0)) < test::Tolerance::kSameAlgebra);
    CHECK(relative_error(found.end, at_step(1)) < test::Tolerance::kSameAlgebra);
    CHECK(relative_error(found.linearised - found.start, (at_step(kStep) - at_step(-kStep)) / (2 * kStep)) <
          test::Tolerance::kDifferences);
    CHECK(share_of_move(found.start, found.end, found.end) == 1);
    CHECK(share_of_move(found.start, found.start, found.end) == 0);
    CHECK(share_of_move(found.start, found.linearised, found.end) < 0.999);  // neither is linear
  }
  const auto stage = linear_stage(0.1);
  auto end = stage;
  test::converge(end);
  const auto found = linearise(stage.objective, stage.theta, end.theta, {}, stage.objective.data());
  CHECK(relative_error(found.linearised, found.end) < test::Tolerance::kSameAlgebra);
}

TEST_CASE("how much features change, and skills, by hand") {
  const auto start = at::tensor({2.0, -1.0, 0.0, 4.0}, at::kDouble).view({2, 2});
  const auto end = at::tensor({3.0, -1.0, 0.0, 1.0}, at::kDouble).view({2, 2});
  const auto change = feature_change(start, end);
  CHECK(change.relative == doctest::Approx(4.0 / 7));
  CHECK(change.mean == doctest::Approx((0.5 + 0 + 0.75) / 3));
  CHECK(change.median == doctest::Approx(0.5));
  CHECK(change.frobenius == doctest::Approx(std::sqrt(10.0 / 21)));
  CHECK(std::isinf(feature_change(at::zeros({1, 2}, at::kDouble), at::ones({1, 2}, at::kDouble)).mean));
  CHECK_THROWS_WITH_AS(feature_change(start, end.view({4})), doctest::Contains("expected two of one shape"),
                       InvalidArgument);
  const auto data = test::toy_data("cross-entropy", 6, 3, Random(2));
  const auto right = at::one_hot(data.targets(), 3).to(at::kDouble);
  CHECK(skill(right, data, TargetKind::kClasses) == 1);
  CHECK(skill(-right, data, TargetKind::kClasses) == 0);
  const auto values = test::toy_data("squared-error", 6, 3, Random(2));
  const auto kind = TargetKind::kValues;
  CHECK(skill(values.targets(), values, kind) == 1);
  CHECK(skill(values.targets().mean(0, true).expand({6, 2}), values, kind) == doctest::Approx(0));
  const auto events = test::toy_data("binary-cross-entropy", 6, 3, Random(2));
  const auto logits = events.targets() - 0.5;
  CHECK(skill(logits, events, TargetKind::kProbabilities) == 1);
  CHECK(skill(-3 * logits, events, TargetKind::kProbabilities) == 0);
}

TEST_CASE("the verdict: each test at its threshold") {
  RegimeEvidence evidence{.before = 0.5,
                          .after = 0.9,
                          .linearised = 0.75,
                          .kernel = 0.82,
                          .asked = 100,
                          .held_out = true,
                          .feature_change = 0.4};
  const auto judged = [](const RegimeEvidence& at) { return judge_regime(at); };
  using Level = RegimeVerdict::Level;
  CHECK(judged(evidence).level == Level::kIn);
  CHECK(judged(evidence).text.starts_with(
      "in the kernel regime: on 100 queries (figures to ± 5 points) the fine-tune goes from 50.0 % to"));
  auto other = evidence;
  other.linearised = 0.7;  // half, whatever its rounding
  CHECK(judged(other).linear == false);
  other.linearised = 0.69;  // less than half of the way from 0.5 to 0.9
  CHECK(judged(other).level == Level::kOut);
  CHECK(judged(other).linear == false);
  other = evidence;
  other.feature_change = 2.5;
  CHECK(judged(other).level == Level::kPartly);
  other.kernel = 0.8;  // below 0.9 x 0.9
  CHECK(judged(other).level == Level::kOut);
  other = evidence;
  other.kernel = RegimeEvidence::kUnknown;  // no queries: one test less
  CHECK(judged(other).level == Level::kIn);
  CHECK(!judged(other).solves);
  other.asked = 5;
  CHECK(judged(other).level == Level::kTooFew);
  other = evidence;
  other.linear_share = 0.51;
  CHECK(judged(other).level == Level::kIn);
  CHECK(judged(other).text.find("and by 51 % of the outputs' move (more than half: holds)") != std::string::npos);
  other.linear_share = 0.49;  // right classes by luck: the outputs went elsewhere
  CHECK(judged(other).level == Level::kOut);
  other = evidence;
  other.after = 0.5;
  CHECK(judged(other).level == Level::kTooFew);
  CHECK(judged(other).text.find("improved nothing") != std::string::npos);
  other.linear_share = 0.9;  // the move alone says it
  CHECK(judged(other).level == Level::kIn);
  CHECK(!judged(other).solves);
  other.linear_share = 0.1;
  CHECK(judged(other).level == Level::kOut);
}

TEST_CASE("the kernel's fit of a squared error is the ridge regression in closed form") {
  for (const bool symmetric : {true, false}) {
    const auto all = made("squared-error", symmetric);
    const auto fit = fit_of(all);
    const auto size = all.gram.size(0);
    const auto y = (all.data.targets() - all.start).reshape({size, 1});
    const auto a = at::linalg_solve(all.gram + 0.05 * 10 * at::eye(size, at::kDouble), y);
    CHECK(relative_error(fit.coefficients().flatten(), a.flatten()) < test::Tolerance::kDense);
  }
}

TEST_CASE("leaving an example out is fitting again without it, by every loss and kernel") {
  for (const char* loss : {"squared-error", "cross-entropy"}) {
    for (const bool symmetric : {true, false}) {
      CAPTURE(loss);
      CAPTURE(symmetric);
      const auto all = made(loss, symmetric);
      const auto fit = fit_of(all);
      const auto left_out = fit.leave_one_out();
      Random draws(6);
      const auto rows = draws.normal({2 * all.outputs, all.gram.size(1)}), start = draws.normal({2, all.outputs});
      const auto found = fit.predict_without(left_out, rows, start);
      for (std::int64_t i = 0; i < 10; ++i) {
        const auto kept = kept_rows(10, i, all.outputs), others = kept_rows(10, i, 1);
        const RegimeFit again(all.gram.index_select(0, kept).index_select(1, kept), all.start.index_select(0, others),
                              all.data.take(others), *all.loss, 0.05 * 10 / 9);
        CHECK(relative_error(found[i], again.predict(rows.index_select(1, kept), start)) < test::Tolerance::kDense);
        CHECK(left_out[i].view({10, -1})[i].abs().max().item<double>() == 0);
      }
    }
  }
}

TEST_CASE("without the only example a fit is where it began") {
  for (const char* loss : {"squared-error", "cross-entropy"}) {
    const auto all = made(loss, true, 1);
    const auto fit = fit_of(all);
    CHECK(fit.coefficients().abs().max().item<double>() > 0);
    const auto left_out = fit.leave_one_out();
    CHECK(left_out.sizes() == at::IntArrayRef({1, all.outputs}));
    CHECK(at::equal(fit.predict_without(left_out, all.gram, all.start)[0], all.start));
  }
}

TEST_CASE("derivatives in weights, and in where the fit begins, are those of fits again") {
  for (const char* loss : {"squared-error", "cross-entropy"}) {
    for (const bool symmetric : {true, false}) {
      CAPTURE(loss);
      CAPTURE(symmetric);
      const auto all = made(loss, symmetric);
      const auto fit = fit_of(all);
      Random draws(6);
      const auto rows = draws.normal({2 * all.outputs, all.gram.size(1)}), start = draws.normal({2, all.outputs});
      const auto derivatives = fit.weight_derivatives(rows);
      constexpr double kStep = 1e-5;
      for (std::int64_t i = 0; i < 3; ++i) {
        const auto weighted = [&](double weight) {  // a weight on an example's loss is one on what is learnt from it
          auto scale = at::ones({10, all.outputs}, at::kDouble);
          scale[i].fill_(weight);
          const auto columns = scale.flatten();
          const RegimeFit again(all.gram * columns, all.start, all.data, *all.loss, 0.05);
          return again.predict(rows * columns, start);
        };
        const auto expected = (weighted(1 + kStep) - weighted(1 - kStep)) / (2 * kStep);
        CHECK(relative_error(derivatives.select(2, i), expected) < test::Tolerance::kDifferences);
      }
      const auto slopes = draws.normal({2, all.outputs});
      const auto pulled = fit.pull_back(rows, slopes).sum(0);
      const auto toward = draws.normal(all.start.sizes());
      const auto moved = [&](double step) {
        const RegimeFit again(all.gram, all.start + step * toward, all.data, *all.loss, 0.05);
        return (again.predict(rows, start) * slopes).sum().item<double>();
      };
      CHECK((pulled * toward).sum().item<double>() ==
            doctest::Approx((moved(kStep) - moved(-kStep)) / (2 * kStep)).epsilon(test::Tolerance::kDifferences));
    }
  }
}

TEST_CASE("of a model that is linear in what it trains, the kernel's fit is its training to the end") {
  const auto start = linear_stage(0.02, 20);
  auto end = start;
  test::converge(end);
  const auto& data = start.objective.data();
  const auto asked = test::toy_data("cross-entropy", 5, 3, Random(77));
  const KernelPoint point{start.objective, start.theta, {}, start.objective.trained().names()};
  const auto entk = create<TangentKernel>("entk");
  const auto gram = kernel_of(*entk, point, data).view({60, 60}), rows = kernel_of(*entk, point, asked, &data);
  const RegimeFit fit(gram, outputs_at(point, data), data, start.objective.loss(), 0.02);
  const auto trained = [&](const Dataset& of) {
    return end.objective.output(end.theta, {}, of.batch(0, of.size())).detach();
  };
  CHECK(relative_error(fit.outputs(), trained(data)) < 1e-8);
  CHECK(relative_error(fit.predict(rows.view({15, 60}), outputs_at(point, asked)), trained(asked)) < 1e-8);
  // and the ridge that comes nearest to the fine-tune is the nearest of the grid to its weight decay
  const double unit = gram.diagonal().mean().item<double>() / 20;
  const double found = nearest_ridge(gram, outputs_at(point, data), data, start.objective.loss(), trained(data));
  CHECK(std::abs(std::log10(found / 0.02)) <= 0.5);
  CHECK(std::abs(std::remainder(std::log10(found / unit), 0.5)) < 1e-9);
}

TEST_CASE("a fit refuses what does not fit together") {
  const auto all = made("cross-entropy", true);
  CHECK_THROWS_WITH_AS(RegimeFit(all.gram, all.start, all.data, *all.loss, 0), "kernel: ridge = 0, expected > 0",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(RegimeFit(all.gram.narrow(0, 0, 9), all.start, all.data, *all.loss, 1),
                       doctest::Contains("a Gram matrix [9, 30] and 10 examples, expected [30, 30]"), InvalidArgument);
}

TEST_SUITE_END();
