#pragma once
#include <cmath>
#include <vector>

#include "whence/attribution/attributor.h"
#include "whence/attribution/measurement.h"

namespace whence {

/// Removals of examples with more leverage are said to be wrong: their change is 1 / (1 - 0.2) = 1.25 times what is
/// predicted, the most that an evaluation's slope may be for sizes to be trusted (evaluate/verdict.h), and the bound
/// above which P. Huber, "Robust Statistics", 1981, calls a row's leverage risky.
inline constexpr double kLeverage = 0.2;

/// Examples whose leverage is looked at.
inline constexpr std::int64_t kLookedForLeverage = 8;

/// One example left out, and how that moves one query.
struct PredictedRemoval {
  std::int64_t query = 0, row = 0;  ///< Of the queries; of the stage's data.
  double change = 0;                ///< As predicted: -score / N.
};
/// The removal of largest size of each of up to `count` examples: first those that move each query most.
std::vector<PredictedRemoval> largest_removals(const at::Tensor& scores, std::int64_t count);

/// A removal that a first order misses: its stage leans on the example. To be looked for near minima: elsewhere, what a
/// second order foretells is no training either.
struct Leverage {
  PredictedRemoval removal;
  double leverage = 0;        ///< LeaveOuts says of what.
  bool from_below = false;    ///< It is at least that.
  double second_order = NAN;  ///< The change with the example's own curvature taken out and the measurement taken where
                              ///< the parameters then are; NaN where from_below, or at a stage before the last.
};

/// Those of `removals`, or of as many of the first as can be afforded, whose example has more leverage than kLeverage,
/// the most first. Cost: 2 % of the `products` that were spent on `solves` solves with the stage's curvature, or 300
/// million multiplications where those are more. Empty, too, where that buys nothing, or the method has no inverse
/// curvature. Deterministic.
std::vector<Leverage> find_leverages(const Chain& chain, std::size_t stage, ScoreSource& source,
                                     std::vector<PredictedRemoval> removals, const Dataset& queries,
                                     Measurement measurement, double products, double solves);

}  // namespace whence
