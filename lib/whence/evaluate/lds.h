#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

#include "whence/evaluate/statistics.h"

namespace whence {

/// Numbers of a tensor in double, in rows' order.
std::vector<double> to_numbers(const at::Tensor& values);

/// The mean over columns (queries) of the statistic of predicted and actual rows, columns where it is undefined left
/// out; NaN where it is nowhere defined. Both [M, Q].
double mean_over_queries(const at::Tensor& predicted, const at::Tensor& actual, const PairStatistic& statistic);

/// The 95 % percentile interval of that over draws of rows with replacement.
Interval agreement_interval(const at::Tensor& predicted, const at::Tensor& actual, const PairStatistic& statistic,
                            Random random);

/// What summed scores [Q, N] foretell of subsets `inside` [M, N] (1: in it): [M, Q] float64. With Spearman's
/// correlation mean_over_queries() of it is the linear datamodelling score. S. Park et al., "TRAK", ICML 2023,
/// definition 2.4.
at::Tensor summed_scores(const at::Tensor& scores, const at::Tensor& inside);

/// What scores [Q, N] foretell of the measurements where each of `rows` [E] is left out alone, and what they did by
/// `measurements` [1 + E, Q], with every example and then without each: [E, Q] float64.
at::Tensor predicted_removals(const at::Tensor& scores, const at::Tensor& rows);
at::Tensor found_removals(const at::Tensor& measurements);

/// How predictions agree with retraining, beside what retraining itself reaches with another seed.
struct CeilingedAgreement {
  double value = 0;
  Interval interval{0, 0};
  double share = 0;  ///< value / the ceiling's; NaN without a ceiling, or with one that is not apart from 0.
  Interval share_interval{0, 0};
};
/// mean_over_queries() of `predicted` [M, Q] with `actual`, and as a share of that of `other_seed` (undefined tensor:
/// none), what another seed's trainings on the same subsets gave. Intervals are 95 % percentiles over draws of rows and
/// of queries with replacement (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993), the same draws
/// for every call with the same `random`.
CeilingedAgreement ceilinged_agreement(const at::Tensor& predicted, const at::Tensor& actual,
                                       const at::Tensor& other_seed, const PairStatistic& statistic, Random random);

/// The mean of values [Q], with the 95 % percentile interval over draws of them.
struct MeanInterval {
  double mean = 0;
  Interval interval{0, 0};
};
MeanInterval mean_interval(const at::Tensor& values, Random random);

}  // namespace whence
