#include <cmath>

#include "support/near.h"
#include "whence/core/random.h"
#include "whence/evaluate/confidence.h"

using namespace whence;

namespace {

/// Removals of `examples` examples for `queries` queries of very different size; what retraining finds is 1.2 times
/// what is predicted, give or take a tenth of it and a tenth of what is typical, from heavy tails.
std::vector<RetrainedRemoval> made_up(std::int64_t examples, std::int64_t queries, Random random) {
  const auto predicted = random.normal({examples, queries}), error = random.normal({examples, queries});
  const auto tail = random.uniform({examples, queries}, 0, 1);
  std::vector<RetrainedRemoval> out;
  for (std::int64_t e = 0; e < examples; ++e) {
    for (std::int64_t q = 0; q < queries; ++q) {
      const double size = std::pow(10, -static_cast<double>(q));
      const double p = size * predicted[e][q].item<double>();
      const double heavy = error[e][q].item<double>() * (tail[e][q].item<double>() > 0.95 ? 5 : 1);
      out.push_back({e, p, 1.2 * p + 0.1 * std::hypot(p, size) * heavy, size});
    }
  }
  return out;
}

}  // namespace

TEST_SUITE("evaluate") {
  TEST_CASE("intervals of removals cover other examples as often as they say, for large queries and small") {
    int inside = 0, count = 0, inside_small = 0, small = 0;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      const auto confidence = RemovalConfidence::learn(made_up(20, 3, Random(seed).stream("learnt")));
      REQUIRE(confidence.has_value());
      CHECK(confidence->examples() == 20);
      const auto [low, high] = confidence->interval(1, 1);
      CHECK((low + high) / 2 == doctest::Approx(1.2).epsilon(0.15));
      for (const auto& pair : made_up(40, 3, Random(seed).stream("others"))) {
        const auto found = confidence->interval(pair.predicted, pair.typical);
        const bool in = found.low <= pair.actual && pair.actual <= found.high;
        inside += in ? 1 : 0;
        ++count;
        if (pair.typical < 0.05) {
          inside_small += in ? 1 : 0;
          ++small;
        }
      }
    }
    const double share = static_cast<double>(inside) / count, of_small = static_cast<double>(inside_small) / small;
    CHECK(share > 0.87);
    CHECK(share < 0.93);
    CHECK(of_small > 0.85);
    CHECK(of_small < 0.95);
  }

  TEST_CASE("intervals are exact where predictions are, and there are none where too little was retrained") {
    std::vector<RetrainedRemoval> pairs;
    for (std::int64_t e = 0; e < RemovalConfidence::kFewest; ++e) {
      const double p = static_cast<double>(e) - 3;
      pairs.push_back({e, p, 2 * p, 3});
    }
    const auto exact = RemovalConfidence::learn(pairs);
    REQUIRE(exact.has_value());
    CHECK(exact->interval(1.5, 3).low == doctest::Approx(3));
    CHECK(exact->interval(1.5, 3).high == doctest::Approx(3));
    auto unknown = pairs;
    unknown[2].actual = NAN;
    CHECK_FALSE(RemovalConfidence::learn(unknown).has_value());
    pairs.pop_back();
    CHECK_FALSE(RemovalConfidence::learn(pairs).has_value());
  }
}
