#pragma once
#include <functional>
#include <span>
#include <vector>

#include "whence/core/random.h"

namespace whence {

/// Statistics of paired values. Throw InvalidArgument when the lengths differ. NaN means undefined: fewer than two
/// pairs, a value that is NaN, or no variation where the statistic divides by it. (JSON writes NaN as null.)

/// Ranks 1 .. n; equal values share the mean of their ranks.
std::vector<double> average_ranks(std::span<const double> values);

double pearson(std::span<const double> x, std::span<const double> y);
/// Pearson of the average ranks.
double spearman(std::span<const double> x, std::span<const double> y);

struct Line {
  double slope;
  double intercept;
};
/// The line slope * x + intercept with the least squared error in y. Undefined (both NaN) where x does not vary.
Line least_squares(std::span<const double> x, std::span<const double> y);

/// The chance that a positive scores above a negative, ties counting half. Undefined where one of the two is absent.
double auroc(std::span<const double> scores, const std::vector<bool>& positive);

struct Interval {
  double low;
  double high;
};
/// The 95 % interval of a Pearson correlation found over `count` independent pairs: R. A. Fisher's z, 1921. NaN for
/// fewer than 4 pairs.
Interval correlation_interval(double correlation, std::int64_t count);

/// The middle share `level` of values; NaN where there are none.
Interval percentile_interval(std::vector<double> values, double level);

using PairStatistic = std::function<double(std::span<const double>, std::span<const double>)>;
/// Percentile interval of `statistic` over `resamples` draws of the pairs with replacement; draws at which the
/// statistic is undefined are left out, and both ends are NaN where that is all of them. B. Efron and R. Tibshirani,
/// "An Introduction to the Bootstrap", 1993, section 13.3. Throws InvalidArgument unless 0 < level < 1 and resamples
/// >= 1.
Interval bootstrap(std::span<const double> x, std::span<const double> y, const PairStatistic& statistic, Random& random,
                   std::int64_t resamples = 1000, double level = 0.95);

}  // namespace whence
