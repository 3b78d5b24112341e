#include "whence/evaluate/lds.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace whence {
namespace {

constexpr int kResamples = 300;

at::Tensor draw(std::int64_t count, Random& random) {
  return random.uniform({count}, 0, static_cast<double>(count)).to(at::kLong).clamp_max(count - 1);
}

at::Tensor taken(const at::Tensor& values, const at::Tensor& rows, const at::Tensor& columns) {
  return values.index_select(0, rows).index_select(1, columns);
}

}  // namespace

std::vector<double> to_numbers(const at::Tensor& values) {
  const auto flat = values.to(at::kDouble).contiguous().flatten();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

double mean_over_queries(const at::Tensor& predicted, const at::Tensor& actual, const PairStatistic& statistic) {
  double total = 0;
  std::int64_t defined = 0;
  for (std::int64_t q = 0; q < predicted.size(1); ++q) {
    const double value = statistic(to_numbers(predicted.select(1, q)), to_numbers(actual.select(1, q)));
    total += std::isnan(value) ? 0 : value;
    defined += std::isnan(value) ? 0 : 1;
  }
  return defined == 0 ? std::numeric_limits<double>::quiet_NaN() : total / static_cast<double>(defined);
}

Interval agreement_interval(const at::Tensor& predicted, const at::Tensor& actual, const PairStatistic& statistic,
                            Random random) {
  std::vector<double> found;
  for (int r = 0; r < kResamples; ++r) {
    const auto rows = draw(actual.size(0), random);
    const double value = mean_over_queries(predicted.index_select(0, rows), actual.index_select(0, rows), statistic);
    if (std::isfinite(value)) {
      found.push_back(value);
    }
  }
  return percentile_interval(std::move(found), 0.95);
}

at::Tensor summed_scores(const at::Tensor& scores, const at::Tensor& inside) {
  return inside.to(at::kDouble).matmul(scores.to(at::kDouble).t());
}

at::Tensor predicted_removals(const at::Tensor& scores, const at::Tensor& rows) {
  return (scores.to(at::kDouble).index_select(1, rows).t() / -static_cast<double>(scores.size(1))).contiguous();
}

at::Tensor found_removals(const at::Tensor& measurements) {
  return (measurements.slice(0, 1) - measurements[0]).contiguous();
}

CeilingedAgreement ceilinged_agreement(const at::Tensor& predicted, const at::Tensor& actual,
                                       const at::Tensor& other_seed, const PairStatistic& statistic, Random random) {
  CeilingedAgreement out;
  const auto ceiling = [&](const at::Tensor& other, const at::Tensor& truth) {
    return other.defined() ? mean_over_queries(other, truth, statistic) : std::numeric_limits<double>::quiet_NaN();
  };
  out.value = mean_over_queries(predicted, actual, statistic);
  out.share = out.value / ceiling(other_seed, actual);
  std::vector<double> values, shares, ceilings;
  for (int r = 0; r < kResamples; ++r) {
    const auto rows = draw(actual.size(0), random), columns = draw(actual.size(1), random);
    const auto truth = taken(actual, rows, columns);
    const double value = mean_over_queries(taken(predicted, rows, columns), truth, statistic);
    const double reached = ceiling(other_seed.defined() ? taken(other_seed, rows, columns) : other_seed, truth);
    if (std::isfinite(value)) {
      values.push_back(value);
    }
    if (std::isfinite(value / reached)) {
      ceilings.push_back(reached);
      shares.push_back(value / reached);
    }
  }
  if (!(percentile_interval(std::move(ceilings), 0.95).low > 0)) {
    shares.clear();
    out.share = std::numeric_limits<double>::quiet_NaN();
  }
  out.interval = percentile_interval(std::move(values), 0.95);
  out.share_interval = percentile_interval(std::move(shares), 0.95);
  return out;
}

MeanInterval mean_interval(const at::Tensor& values, Random random) {
  std::vector<double> means;
  for (int r = 0; r < kResamples; ++r) {
    means.push_back(values.index_select(0, draw(values.numel(), random)).mean().item<double>());
  }
  return {values.mean().item<double>(), percentile_interval(std::move(means), 0.95)};
}

}  // namespace whence
