#include "whence/evaluate/statistics.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "whence/core/error.h"

namespace whence {
namespace {

using Values = std::span<const double>;
constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

void check_paired(std::size_t x, std::size_t y) {
  if (x != y) {
    throw InvalidArgument(fmt::format("statistics: {} values of x and {} of y, expected as many", x, y));
  }
}

bool any_nan(Values values) {
  return std::any_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
}

/// Whether there are two different values: exact, where a computed variance would be rounding noise.
bool varies(Values values) {
  return std::any_of(values.begin(), values.end(), [&](double v) { return v != values.front(); });
}

struct Moments {
  double x_mean, y_mean, xx, xy, yy;
};

/// Means and centred sums of products.
Moments moments(Values x, Values y) {
  const auto n = static_cast<double>(x.size());
  Moments m{std::reduce(x.begin(), x.end()) / n, std::reduce(y.begin(), y.end()) / n, 0, 0, 0};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double dx = x[i] - m.x_mean, dy = y[i] - m.y_mean;
    m.xx += dx * dx;
    m.xy += dx * dy;
    m.yy += dy * dy;
  }
  return m;
}

/// The value below which a share `p` of the sorted values lies, interpolated between neighbours.
double percentile(Values sorted, double p) {
  const double position = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - static_cast<double>(below));
}

}  // namespace

std::vector<double> average_ranks(Values values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t first = 0; first < order.size();) {
    auto last = first + 1;
    while (last < order.size() && values[order[last]] == values[order[first]]) {
      ++last;
    }
    for (auto i = first; i < last; ++i) {
      ranks[order[i]] = static_cast<double>(first + last + 1) / 2;
    }
    first = last;
  }
  return ranks;
}

double pearson(Values x, Values y) {
  check_paired(x.size(), y.size());
  if (!varies(x) || !varies(y)) {
    return kUndefined;
  }
  const auto m = moments(x, y);
  const double r = m.xy / std::sqrt(m.xx) / std::sqrt(m.yy);
  return std::isnan(r) ? kUndefined : std::clamp(r, -1.0, 1.0);
}

double spearman(Values x, Values y) {
  check_paired(x.size(), y.size());
  return any_nan(x) || any_nan(y) ? kUndefined : pearson(average_ranks(x), average_ranks(y));
}

Line least_squares(Values x, Values y) {
  check_paired(x.size(), y.size());
  if (!varies(x)) {
    return {kUndefined, kUndefined};
  }
  const auto m = moments(x, y);
  const double slope = m.xy / m.xx;
  return {slope, m.y_mean - slope * m.x_mean};
}

double auroc(Values scores, const std::vector<bool>& positive) {
  check_paired(scores.size(), positive.size());
  const auto positives = static_cast<double>(std::count(positive.begin(), positive.end(), true));
  const auto negatives = static_cast<double>(positive.size()) - positives;
  if (positives == 0 || negatives == 0 || any_nan(scores)) {
    return kUndefined;
  }
  const auto ranks = average_ranks(scores);
  double sum = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    sum += positive[i] ? ranks[i] : 0;
  }
  return (sum - positives * (positives + 1) / 2) / (positives * negatives);  // Mann and Whitney's U
}

Interval correlation_interval(double correlation, std::int64_t count) {
  if (count < 4 || std::isnan(correlation)) {
    return {kUndefined, kUndefined};
  }
  const double z = std::atanh(std::clamp(correlation, -1 + 1e-15, 1 - 1e-15));
  const double reach = 1.959964 / std::sqrt(static_cast<double>(count - 3));
  return {std::tanh(z - reach), std::tanh(z + reach)};
}

Interval percentile_interval(std::vector<double> values, double level) {
  if (values.empty()) {
    return {kUndefined, kUndefined};
  }
  std::sort(values.begin(), values.end());
  return {percentile(values, (1 - level) / 2), percentile(values, (1 + level) / 2)};
}

Interval bootstrap(Values x, Values y, const PairStatistic& statistic, Random& random, std::int64_t resamples,
                   double level) {
  check_paired(x.size(), y.size());
  if (!(level > 0 && level < 1) || resamples < 1) {
    throw InvalidArgument(fmt::format(
        "bootstrap: level = {}, resamples = {}, expected a level in (0, 1) and resamples >= 1", level, resamples));
  }
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<double> drawn_x(x.size()), drawn_y(x.size()), found;
  for (std::int64_t r = 0; r < resamples && n > 0; ++r) {
    const auto draws = random.uniform({n}, 0, static_cast<double>(n));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto pick = std::min(static_cast<std::size_t>(draws.const_data_ptr<double>()[i]), x.size() - 1);
      drawn_x[i] = x[pick];
      drawn_y[i] = y[pick];
    }
    const double value = statistic(drawn_x, drawn_y);
    if (!std::isnan(value)) {
      found.push_back(value);
    }
  }
  return percentile_interval(std::move(found), level);
}

}  // namespace whence
