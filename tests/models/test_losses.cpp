#include <torch/csrc/autograd/autograd.h>

#include "models/made.h"
#include "support/near.h"

using namespace whence;
using namespace whence::test;

namespace {

Batch with_targets(at::Tensor targets) {
  Batch batch;
  batch.targets = std::move(targets);
  return batch;
}

}  // namespace

TEST_SUITE("models") {
  TEST_CASE("every loss's Hessian product is autograd's, and all that it computes is the same in float32") {
    for (const auto& method : methods<Loss>()) {
      if (!create<Loss>(method.name)->is_of_output()) {  // test_exported.cpp
        continue;
      }
      CAPTURE(method.name);
      const auto loss = create<Loss>(method.name);
      const auto batch = made_batch(*loss);
      Random random(4);
      const auto output = random.normal({kExamples, kOutputs}), u = random.normal({kExamples, kOutputs});
      const auto tracked = leaves({output});
      const auto first = gradient(loss->per_example(tracked[0], batch).sum(), tracked, true);
      CHECK(relative_error(loss->hessian_product(output, batch, u), gradient(first, tracked, {u})[0]) <
            Tolerance::kSameAlgebra);
      CHECK(loss->per_example(output, batch).sizes() == at::IntArrayRef({kExamples}));
      const auto narrow = output.to(at::kFloat);
      const auto in_float32 = [](const at::Tensor& found, const at::Tensor& wanted) {
        CHECK((found.scalar_type() == at::kFloat));
        CHECK(relative_error(found, wanted) < Tolerance::kFloat);
      };
      in_float32(loss->per_example(narrow, batch), loss->per_example(output, batch));
      in_float32(loss->hessian_product(narrow, batch, u.to(at::kFloat)), loss->hessian_product(output, batch, u));
      in_float32(loss->hessian_root(narrow, batch), loss->hessian_root(output, batch));
      const auto noise = random.uniform({kExamples, loss->noise_width(kOutputs)}, 1e-12, 1 - 1e-12);
      in_float32(loss->sampled_gradient(narrow, batch, noise), loss->sampled_gradient(output, batch, noise));
    }
  }

  TEST_CASE("of what the model is sure of, 1 - p far below 1, losses keep their digits in float32") {
    for (const char* name : {"cross-entropy", "next-token", "masked-token:mean", "binary-cross-entropy"}) {
      CAPTURE(name);
      const auto loss = create<Loss>(name);
      const auto batch = made_batch(*loss);
      Random random(6);
      const auto narrow = random.normal({batch.targets.size(0), kOutputs}).to(at::kFloat);
      if (batch.targets.dim() == 1) {
        narrow.scatter_add_(1, batch.targets.unsqueeze(1), at::full_like(narrow, 17));  // of 1 - p about 1e-7
      } else {
        batch.targets.round_();
        narrow.add_((2 * batch.targets - 1).to(at::kFloat), 17);
      }
      const auto u = random.normal(narrow.sizes());
      const auto noise = at::full({narrow.size(0), loss->noise_width(kOutputs)}, 0.5, at::kDouble);
      const auto found = [&](const at::Tensor& output) {
        const auto at = leaves({output});
        const auto losses = loss->per_example(at[0], batch);
        const auto slope = gradient(losses.sum(), at, true);
        const auto direction = u.to(output.scalar_type());
        return TensorList{losses,
                          slope[0],
                          gradient(slope, at, {direction})[0],
                          loss->hessian_product(output, batch, direction),
                          loss->hessian_root(output, batch),
                          loss->sampled_gradient(output, batch, noise)};
      };
      const auto in_float32 = found(narrow), in_float64 = found(narrow.to(at::kDouble));
      for (std::size_t i = 0; i < in_float64.size(); ++i) {
        CAPTURE(i);
        CHECK(in_float64[i].abs().max().item<double>() < 0.1);
        CHECK((in_float32[i].scalar_type() == at::kFloat));
        CHECK(relative_error(in_float32[i], in_float64[i]) < Tolerance::kFloat);
      }
    }
  }

  TEST_CASE("a row's loss and gradient are the same to the last digit, whichever rows are beside it") {
    for (const char* name : {"cross-entropy", "binary-cross-entropy"}) {
      CAPTURE(name);
      const auto loss = create<Loss>(name);
      Random random(8);
      constexpr std::int64_t kRows = 37;
      const auto output = (3 * random.normal({kRows, kOutputs})).to(at::kFloat);
      const auto targets = random.uniform({kRows}, 0, kOutputs).floor().to(at::kLong);
      const auto found = [&](std::int64_t begin, std::int64_t rows) {
        const auto at = leaves({output.narrow(0, begin, rows).clone()});
        const auto losses = loss->per_example(at[0], with_targets(targets.narrow(0, begin, rows)));
        return std::pair{losses.detach(), gradient(losses.sum(), at)[0]};
      };
      const auto [losses, gradients] = found(0, kRows);
      for (std::int64_t b = 0; b < kRows; ++b) {
        const auto [one, slope] = found(b, 1);
        CHECK(at::equal(one[0], losses[b]));
        CHECK(at::equal(slope[0], gradients[b]));
      }
    }
  }

  TEST_CASE("every loss's root squares to its Hessian, and so do drawn labels' gradients on average") {
    for (const auto& method : methods<Loss>()) {
      if (!create<Loss>(method.name)->is_of_output()) {  // test_exported.cpp
        continue;
      }
      CAPTURE(method.name);
      const auto loss = create<Loss>(method.name);
      const auto batch = made_batch(*loss);
      Random random(4);
      const auto output = random.normal({kExamples, kOutputs});
      TensorList columns;
      for (std::int64_t c = 0; c < kOutputs; ++c) {
        auto unit = at::zeros_like(output);
        unit.select(1, c).fill_(1);
        columns.push_back(loss->hessian_product(output, batch, unit));
      }
      const auto hessian = at::stack(columns, 2);
      const auto root = loss->hessian_root(output, batch);
      CHECK(relative_error(at::bmm(root, root.transpose(1, 2)), hessian) < Tolerance::kSameAlgebra);
      constexpr int kDraws = 20000;
      auto mean = at::zeros_like(hessian);
      for (int i = 0; i < kDraws; ++i) {
        const auto g = loss->sampled_gradient(
            output, batch, random.uniform({kExamples, loss->noise_width(kOutputs)}, 1e-12, 1 - 1e-12));
        mean.add_(at::bmm(g.unsqueeze(2), g.unsqueeze(1)), 1.0 / kDraws);
      }
      CHECK(relative_error(mean, hessian) < 0.03);  // standard error about 1 / sqrt(20000)
    }
  }

  TEST_CASE("token losses sum over an example's predictions, or average") {
    const auto sum = create<Loss>("next-token"), mean = create<Loss>("next-token:mean");
    const auto batch = made_batch(*sum);
    Random random(5);
    const auto output = random.normal({kExamples, kOutputs});
    const auto rows = create<Loss>("cross-entropy")->per_example(output, with_targets(batch.targets));
    const auto sums = sum->per_example(output, batch), means = mean->per_example(output, batch);
    CHECK(sums[0].item<double>() == doctest::Approx((rows[0] + rows[1]).item<double>()).epsilon(1e-14));
    CHECK(means[0].item<double>() == doctest::Approx((rows[0] + rows[1]).item<double>() / 2).epsilon(1e-14));
    CHECK(means[1].item<double>() == rows[2].item<double>());
    CHECK(sums[3].item<double>() == 0);
    CHECK(create<Loss>("masked-token:mean=true")->wants() == TargetKind::kMaskedTokens);
  }

  TEST_CASE("cross-entropy by hand") {
    const auto loss = create<Loss>("cross-entropy");
    CHECK(loss->wants() == TargetKind::kClasses);
    const auto output = at::tensor({0.0, std::log(3.0), 1000.0, 0.0}, at::kDouble).view({2, 2});
    const auto values = loss->per_example(output, with_targets(at::tensor({0, 1}, at::kLong)));
    CHECK(values[0].item<double>() == doctest::Approx(std::log(4.0)).epsilon(1e-14));
    CHECK(values[1].item<double>() == 1000);  // no overflow
  }

  TEST_CASE("cross-entropy refuses values, and classes that the output lacks") {
    const auto loss = create<Loss>("cross-entropy");
    const auto output = at::zeros({2, 3}, at::kDouble);
    CHECK_THROWS_WITH_AS(
        loss->per_example(at::zeros({2, 4}, at::kDouble), with_targets(at::zeros({2, 3}, at::kDouble))),
        "cross-entropy: targets of shape [2, 3] and dtype Double, expected [2] class numbers "
        "(Long) or [2, 4] shares",
        InvalidArgument);
    CHECK_THROWS_WITH_AS(loss->per_example(output, with_targets(at::tensor({1, 3}, at::kLong))),
                         "cross-entropy: targets are classes 1 .. 3, expected 0 .. 2 for 3 outputs", InvalidArgument);
  }

  TEST_CASE("cross-entropy of shares, and smoothed, by hand") {
    const auto loss = create<Loss>("cross-entropy"), smooth = create<Loss>("cross-entropy:smoothing=0.3");
    const auto output = at::tensor({0.0, std::log(3.0), 0.0, 0.0}, at::kDouble).view({2, 2});
    const auto shares = at::tensor({0.5, 0.5, 0.0, 1.0}, at::kDouble).view({2, 2});
    const auto values = loss->per_example(output, with_targets(shares));
    CHECK(values[0].item<double>() == doctest::Approx(std::log(4.0) - std::log(3.0) / 2).epsilon(1e-14));
    CHECK(values[1].item<double>() == doctest::Approx(std::log(2.0)).epsilon(1e-14));
    // smoothing is shares: 0.7 of the target and 0.3 of one half each
    const auto classes = at::tensor({1, 1}, at::kLong), one_hot = at::tensor({0.0, 1.0, 0.0, 1.0}, at::kDouble);
    const auto spread = with_targets(0.7 * one_hot.view({2, 2}) + 0.15);
    for (const auto& targets : {classes, one_hot.view({2, 2})}) {
      CHECK(relative_error(smooth->per_example(output, with_targets(targets)), loss->per_example(output, spread)) <
            Tolerance::kSameAlgebra);
    }
    CHECK_THROWS_WITH_AS(create<Loss>("cross-entropy:smoothing=1"), doctest::Contains("in [0, 1)"), InvalidArgument);
    Batch batch = with_targets(at::tensor({0.5, 0.5, 0.5, 0.25}, at::kDouble).view({2, 2}));
    batch.ids = at::tensor({30, 70}, at::kLong);
    CHECK_THROWS_WITH_AS(loss->per_example(output, batch),
                         "cross-entropy: example 70 has shares that sum to 0.75, expected 1", InvalidArgument);
    batch.targets = at::tensor({-0.5, 1.5, 0.5, 0.5}, at::kDouble).view({2, 2});
    CHECK_THROWS_WITH_AS(loss->per_example(output, batch),
                         "cross-entropy: example 30 has value 0 of -0.5, expected one from 0 to 1", InvalidArgument);
  }

  TEST_CASE("binary-cross-entropy by hand: one event, several, shares of them, and classes as one-hot rows") {
    const auto loss = create<Loss>("binary-cross-entropy"), mean = create<Loss>("binary-cross-entropy:mean");
    CHECK(loss->wants() == TargetKind::kProbabilities);
    const auto one = at::tensor({0.0, std::log(3.0), 800.0, -800.0}, at::kDouble).unsqueeze(1);
    const auto values =
        loss->per_example(one, with_targets(at::tensor({1.0, 0.25, 0.0, 0.0}, at::kDouble).unsqueeze(1)));
    CHECK(values[0].item<double>() == doctest::Approx(std::log(2.0)).epsilon(1e-14));
    CHECK(values[1].item<double>() == doctest::Approx(std::log(4.0) - 0.25 * std::log(3.0)).epsilon(1e-14));
    CHECK(values[2].item<double>() == 800);  // no overflow
    CHECK(values[3].item<double>() == 0);
    const auto three = at::tensor({0.0, std::log(3.0), 0.0}, at::kDouble).unsqueeze(0);
    const auto events = with_targets(at::tensor({1.0, 1.0, 0.0}, at::kDouble).unsqueeze(0));
    const double sum = 2 * std::log(2.0) + std::log(4.0 / 3);
    CHECK(loss->per_example(three, events).item<double>() == doctest::Approx(sum).epsilon(1e-14));
    CHECK(mean->per_example(three, events).item<double>() == doctest::Approx(sum / 3).epsilon(1e-14));
    const auto u = at::ones({1, 3}, at::kDouble);
    CHECK(relative_error(mean->hessian_product(three, events, u), loss->hessian_product(three, events, u) / 3) <
          Tolerance::kSameAlgebra);
    CHECK(loss->per_example(three, with_targets(at::tensor({1}, at::kLong))).item<double>() ==
          doctest::Approx(sum).epsilon(1e-14));  // as events 0 1 0 of logits 0, log 3, 0
    CHECK_THROWS_WITH_AS(loss->per_example(three, with_targets(at::tensor({3}, at::kLong))),
                         "binary-cross-entropy: targets are classes 3 .. 3, expected 0 .. 2 for 3 outputs",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(loss->per_example(three, with_targets(at::zeros({1, 2}, at::kDouble))),
                         "binary-cross-entropy: targets of shape [1, 2] for outputs of shape [1, 3], expected the same",
                         InvalidArgument);
    auto bad = with_targets(at::tensor({1.0, 0.0, 2.0}, at::kDouble).unsqueeze(0));
    bad.ids = at::tensor({12}, at::kLong);
    CHECK_THROWS_WITH_AS(loss->per_example(three, bad),
                         "binary-cross-entropy: example 12 has value 2 of 2, expected one from 0 to 1",
                         InvalidArgument);
  }

  TEST_CASE("squared-error by hand: values, and classes as one-hot rows") {
    const auto loss = create<Loss>("squared-error");
    CHECK(loss->wants() == TargetKind::kValues);
    const auto output = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kDouble).view({2, 2});
    const auto values =
        loss->per_example(output, with_targets(at::tensor({1.0, 0.0, 0.0, 4.5}, at::kDouble).view({2, 2})));
    CHECK(at::equal(values, at::tensor({2.0, 4.625}, at::kDouble)));
    CHECK(at::equal(loss->per_example(output, with_targets(at::tensor({1, 0}, at::kLong))),
                    at::tensor({1.0, 10.0}, at::kDouble)));
    CHECK_THROWS_WITH_AS(loss->per_example(output, with_targets(at::zeros({2, 3}, at::kDouble))),
                         "squared-error: targets of shape [2, 3] for outputs of shape [2, 2], expected the same",
                         InvalidArgument);
    CHECK_THROWS_WITH_AS(loss->per_example(output, with_targets(at::tensor({1, 2}, at::kLong))),
                         "squared-error: targets are classes 1 .. 2, expected 0 .. 1 for 2 outputs", InvalidArgument);
  }
}
