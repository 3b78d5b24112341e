#include "kernels/points.h"
#include "whence/core/error.h"
#include "whence/kernels/low_rank.h"

using namespace whence;
using namespace whence::test;

namespace {

/// The gradients of a weight [N, C, height, width] times a matrix [r, width] on the right, or of one whose input stands
/// in front on the left; and the kernel of those.
at::Tensor projected_kernel(const at::Tensor& gradients, at::IntArrayRef shape, bool input_first,
                            const at::Tensor& projection) {
  auto g = gradients.view({gradients.size(0), gradients.size(1), shape[0], -1});
  if (input_first) {
    g = g.transpose(2, 3);
  }
  const auto seen = at::matmul(g, projection.t()).flatten(2);
  return at::tensordot(seen, seen, {2}, {2});
}

}  // namespace

TEST_SUITE_BEGIN("kernels");

TEST_CASE("low-rank kernels are those of gradients seen through the projections, and the whole one the eNTK") {
  for (const std::size_t number : {0U, 1U, 2U, 3U}) {
    CAPTURE(number);
    const bool transposed = number == 2;  // GPT-2's weights are [in, out]
    const KernelCase bench(kTuningCases[number]);
    auto point = point_of(bench.moved("full"));
    const auto& data = point.objective.data();
    const Random random(5);
    const auto found = low_rank_kernels(point, data, {2, 5}, random, 0.95, {.block = 3});
    // the weights of linear layers and convolutions, none of which is an embedding's
    std::erase_if(point.names, [&](const auto& name) {
      const auto dims = point.objective.merge(point.theta, point.parent).at(name).dim();
      return dims < 2 || name.find("wte") != std::string::npos || name.find("wpe") != std::string::npos ||
             name.find("embed") != std::string::npos;
    });
    REQUIRE(point.names.size() > 1);
    CHECK(relative_error(found.whole, kernel_of(*create<TangentKernel>("entk"), point, data)) < Tolerance::kDense);
    const auto gradients = output_gradients(point, data);
    const auto merged = point.objective.merge(point.theta, point.parent);
    for (std::size_t k = 0; k < 2; ++k) {
      const auto rank = found.ranks[k].rank;
      at::Tensor expected = at::zeros_like(found.whole);
      for (std::size_t p = 0; p < point.names.size(); ++p) {
        const auto& weight = merged.at(point.names[p]);
        const auto inputs = transposed ? weight.size(0) : weight.numel() / weight.size(0);
        const auto drawn = random.stream("projection").stream(point.names[p]).normal({5, inputs}).narrow(0, 0, rank);
        expected +=
            projected_kernel(gradients[p], weight.sizes(), transposed, drawn / std::sqrt(static_cast<double>(rank)));
      }
      CHECK(relative_error(found.ranks[k].kernel, expected) < Tolerance::kDense);
      CHECK(found.ranks[k].mean ==
            doctest::Approx(((expected - found.whole).norm() / found.whole.norm()).item<double>()));
    }
    CHECK((found.envelope + 1e-12).ge(found.whole.abs()).all().item<bool>());
  }
}

TEST_CASE("a LoRA stage as it begins has the kernel of its own A") {
  const KernelCase bench(kTuningCases[3]);
  const auto lora = bench.fresh("lora:rank=2,alpha=3");
  auto whole = point_of(bench.moved("full"));
  // the body's weights at the same point
  const auto merged = lora.objective.merge(lora.theta, lora.parent);
  TensorList theta;
  for (const auto& name : whole.objective.trained().names()) {
    theta.push_back(merged.at(name));
  }
  whole.theta = theta;
  at::Tensor expected;
  whole.names = {};
  for (const auto& name : lora.objective.trained().names()) {
    constexpr std::string_view kBefore = "tuning.", kEnd = ".lora_A.weight";
    if (name.ends_with(kEnd)) {
      const auto module = name.substr(kBefore.size(), name.size() - kBefore.size() - kEnd.size());
      whole.names = {module + ".weight"};
      const auto gradients = output_gradients(whole, whole.objective.data())[0];
      const auto& weight = merged.at(module + ".weight");
      const auto part = projected_kernel(gradients, weight.sizes(), false, merged.at(name) * 1.5);  // alpha / rank
      expected = expected.defined() ? expected + part : part;
    }
  }
  REQUIRE(expected.defined());
  CHECK(relative_error(kernel_of(*create<TangentKernel>("entk"), point_of(lora, "tuning"), lora.objective.data()),
                       expected) < Tolerance::kDense);
}

TEST_CASE("deviations stay under the bound, and shrink with the rank's root around the whole kernel") {
  const KernelCase bench(kTuningCases[0]);
  const auto point = point_of(bench.moved("full"));
  const auto& data = point.objective.data();
  at::Tensor sum;
  double small = 0, large = 0;
  constexpr int kDraws = 24;
  for (int draw = 0; draw < kDraws; ++draw) {
    const auto found = low_rank_kernels(point, data, {4, 64}, Random(static_cast<std::uint64_t>(draw)));
    for (const auto& rank : found.ranks) {
      CHECK(rank.worst > 0);
      CHECK(rank.worst < rank.epsilon);
      CHECK(rank.kernel.sub(found.whole).abs().le(rank.epsilon * found.envelope).all().item<bool>());
      CHECK(rank.epsilon == projection_bound(found.pairs, rank.rank, 0.95));
    }
    small += found.ranks[0].mean;
    large += found.ranks[1].mean;
    sum = sum.defined() ? sum + found.ranks[0].kernel : found.ranks[0].kernel;
    if (draw + 1 == kDraws) {
      // a mean of 24 draws is off by a fifth of what one draw is off by
      CHECK(relative_error(sum / kDraws, found.whole) < 0.5 * small / kDraws);
    }
  }
  CHECK(small / large == doctest::Approx(4).epsilon(0.25));
  // the tail that the bound is made of: unit vectors through [r, inputs], against their product
  const double x = 3;
  const auto a = Random(1).normal({20000, 8}), b = Random(2).normal({20000, 8});
  const auto off = ((a * b).mean(1)).abs();  // of orthogonal unit vectors, rank 8
  const double bound = 2 * std::sqrt(x / 8) + 2 * x / 8;
  CHECK(off.gt(bound).to(at::kDouble).mean().item<double>() <= 4 * std::exp(-x));
  CHECK(projection_bound(1, 8, 1 - 4 * std::exp(-x)) == doctest::Approx(bound));
}

TEST_CASE("the kernel of a random subspace is drawn around the whole one") {
  const auto features = Random(1).normal({4, 2, 9});
  const auto whole = at::tensordot(features, features, {2}, {2});
  auto sum = at::zeros_like(whole);
  double away = 0;
  for (std::uint64_t draw = 0; draw < 400; ++draw) {
    const auto found = subspace_kernel(whole, 3, Random(draw));
    const auto eigenvalues = at::linalg_eigvalsh(found.view({8, 8}));
    CHECK(eigenvalues[4].item<double>() < 1e-9 * eigenvalues[7].item<double>());  // of rank 3
    away += (found - whole).square().sum().item<double>();
    sum += found;
  }
  CHECK(relative_error(sum / 400, whole) < 0.1);
  // E |K_d - K|^2 = (|K|^2 + (tr K)^2) / d
  const double trace = whole.view({8, 8}).trace().item<double>();
  CHECK(away / 400 == doctest::Approx((whole.square().sum().item<double>() + trace * trace) / 3).epsilon(0.15));
}

TEST_CASE("low-rank kernels of nothing are refused") {
  const KernelCase bench(kTuningCases[1]);
  auto point = point_of(bench.moved("full"));
  const auto& data = point.objective.data();
  CHECK_THROWS_AS(low_rank_kernels(point, data, {}, Random(1)), InvalidArgument);
  CHECK_THROWS_AS(low_rank_kernels(point, data, {0}, Random(1)), InvalidArgument);
  CHECK_THROWS_WITH_AS(low_rank_kernels(point, data, {2}, Random(1), 1.0),
                       "low-rank kernels: confidence = 1, expected in (0, 1)", InvalidArgument);
  point.names = {"head.bias"};
  CHECK_THROWS_WITH_AS(low_rank_kernels(point, data, {2}, Random(1)),
                       "low-rank kernels: none of the 1 parameters is the weight of a linear layer or a convolution, "
                       "expected at least one",
                       InvalidArgument);
}

TEST_SUITE_END();
