#include <cmath>
#include <limits>

#include "support/near.h"
#include "whence/core/error.h"
#include "whence/evaluate/statistics.h"

using namespace whence;
using doctest::Approx;
using Values = std::vector<double>;

TEST_SUITE("evaluate") {
  TEST_CASE("average ranks share ties") {
    CHECK(average_ranks(Values{30, 10, 20}) == Values{3, 1, 2});
    CHECK(average_ranks(Values{2, 1, 2, 2}) == Values{3, 1, 3, 3});
    CHECK(average_ranks(Values{5, 5}) == Values{1.5, 1.5});
    CHECK(average_ranks(Values{}).empty());
  }

  TEST_CASE("pearson and spearman against hand-computed values") {
    const Values x{1, 2, 3, 4, 5}, y{2, 1, 4, 3, 7};
    // centred: x -2 -1 0 1 2; y -1.4 -2.4 0.6 -0.4 3.6: xy = 12, xx = 10, yy = 21.2
    CHECK(pearson(x, y) == Approx(12 / std::sqrt(212.0)).epsilon(1e-14));
    // ranks of y 2 1 4 3 5: 1 - 6 * 4 / (5 * 24)
    CHECK(spearman(x, y) == Approx(0.8).epsilon(1e-14));
    const Values cubes{1, 8, 27, 64, 125}, down{5, 4, 3, 2, 1};
    CHECK(spearman(x, cubes) == Approx(1).epsilon(1e-14));
    CHECK(pearson(x, cubes) < 0.95);
    CHECK(pearson(x, down) == Approx(-1).epsilon(1e-14));
    // ties: ranks x 1.5 1.5 3, y 1 2 3: xy = 1.5, xx = 1.5, yy = 2
    CHECK(spearman(Values{0, 0, 9}, Values{1, 2, 3}) == Approx(1.5 / std::sqrt(3.0)).epsilon(1e-14));
  }

  TEST_CASE("a large offset does not spoil the correlation") {
    const Values x{1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 4}, y{1, 2, 3, 5};
    CHECK(pearson(x, y) == Approx(pearson(Values{1, 2, 3, 4}, y)).epsilon(1e-9));
  }

  TEST_CASE("least squares line") {
    const auto exact = least_squares(Values{0, 1, 2}, Values{1, 3, 5});
    CHECK(exact.slope == Approx(2));
    CHECK(exact.intercept == Approx(1));
    // xy = 1, xx = 2; means 1 and 1
    const auto fit = least_squares(Values{0, 1, 2}, Values{0, 2, 1});
    CHECK(fit.slope == Approx(0.5));
    CHECK(fit.intercept == Approx(0.5));
    CHECK(least_squares(Values{1, 2}, Values{3, 3}).slope == 0);
    CHECK(std::isnan(least_squares(Values{0.1, 0.1, 0.1}, Values{1, 2, 3}).slope));
    CHECK(std::isnan(least_squares(Values{1}, Values{1}).intercept));
  }

  TEST_CASE("auroc counts the pairs in order") {
    // positives 0.8, 0.4; negatives 0.1, 0.4: pairs won 1 + 1 + 1 + 0.5
    CHECK(auroc(Values{0.1, 0.4, 0.4, 0.8}, {false, false, true, true}) == Approx(3.5 / 4));
    CHECK(auroc(Values{1, 2, 3}, {false, false, true}) == 1);
    CHECK(auroc(Values{1, 2, 3}, {true, false, false}) == 0);
    CHECK(std::isnan(auroc(Values{1, 2}, {true, true})));
    CHECK(std::isnan(auroc(Values{}, {})));
  }

  TEST_CASE("undefined is NaN, another length an error") {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    for (const auto& statistic : {pearson, spearman}) {
      CHECK(std::isnan(statistic(Values{}, Values{})));
      CHECK(std::isnan(statistic(Values{1}, Values{1})));
      CHECK(std::isnan(statistic(Values{0.1, 0.1, 0.1}, Values{1, 2, 3})));
      CHECK(std::isnan(statistic(Values{1, 2, kNan}, Values{1, 2, 3})));
      CHECK_THROWS_AS(statistic(Values{1, 2}, Values{1}), InvalidArgument);
    }
    CHECK_THROWS_AS(least_squares(Values{1, 2}, Values{1}), InvalidArgument);
    CHECK_THROWS_AS(auroc(Values{1, 2}, {true}), InvalidArgument);
  }

  TEST_CASE("bootstrap repeats to the bit, covers, and follows the seed") {
    auto noise = Random(3).normal({2, 60});
    Values x(60), y(60);
    for (std::size_t i = 0; i < 60; ++i) {
      x[i] = noise.data_ptr<double>()[i];
      y[i] = x[i] + noise.data_ptr<double>()[60 + i];  // correlation 1/sqrt(2)
    }
    Random one(7), same(7), other(8);
    const auto interval = bootstrap(x, y, pearson, one);
    const auto again = bootstrap(x, y, pearson, same);
    const auto elsewhere = bootstrap(x, y, pearson, other);
    CHECK(interval.low == again.low);
    CHECK(interval.high == again.high);
    CHECK(interval.low != elsewhere.low);
    CHECK(interval.low < pearson(x, y));
    CHECK(interval.high > pearson(x, y));
    // Fisher's z: standard error 1/sqrt(n - 3) of atanh r, so a 95 % interval of about 0.52 in z
    CHECK(std::atanh(interval.high) - std::atanh(interval.low) == Approx(2 * 1.96 / std::sqrt(57.0)).epsilon(0.35));
    Random narrow(7);
    const auto half = bootstrap(x, y, pearson, narrow, 1000, 0.5);
    CHECK(half.low > interval.low);
    CHECK(half.high < interval.high);
  }

  TEST_CASE("bootstrap at the edges") {
    Random random(1);
    const auto undefined = bootstrap(Values{1, 1}, Values{1, 2}, pearson, random);
    CHECK(std::isnan(undefined.low));
    CHECK(std::isnan(bootstrap(Values{}, Values{}, pearson, random).high));
    // two points: every draw that holds both has r = 1, the others are left out
    const auto two = bootstrap(Values{1, 2}, Values{1, 2}, pearson, random);
    CHECK(two.low == Approx(1));
    CHECK_THROWS_AS(bootstrap(Values{1, 2}, Values{1, 2}, pearson, random, 0), InvalidArgument);
    CHECK_THROWS_AS(bootstrap(Values{1, 2}, Values{1, 2}, pearson, random, 10, 1.0), InvalidArgument);
  }
}
