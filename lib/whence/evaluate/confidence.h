#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "whence/evaluate/statistics.h"

namespace whence {

/// A removal as it was predicted and as retraining found it.
struct RetrainedRemoval {
  std::int64_t example;  ///< Id.
  double predicted, actual;
  double typical;  ///< Root mean square of what was predicted of this query, over all of the stage's examples.
};

/// Intervals into which the changes that retraining would find fall with a stated chance, learnt from examples that
/// were retrained. A change is slope * predicted, give or take `reach` times sqrt(predicted^2 + (spread * typical)^2):
/// slope and spread by maximum likelihood, the reach by conformal prediction, each example judged by a fit to the
/// others; for large removals (at least half of the typical one) and small ones apart, where each has kFewest examples.
/// J. Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018, section 5.2; R. F. Barber et al.,
/// "Predictive inference with the jackknife+", 2021. The chance is over examples like those that were retrained and
/// over queries; of a single query or of the strongest examples alone it may be another.
class RemovalConfidence {
 public:
  static constexpr double kLevel = 0.9;
  static constexpr std::int64_t kFewest = 9;  ///< Of fewer examples no 90 % interval is finite.

  /// Nothing where fewer than kFewest examples were retrained, or where a number is not finite. Cost: examples x pairs.
  static std::optional<RemovalConfidence> learn(const std::vector<RetrainedRemoval>& pairs);

  Interval interval(double predicted, double typical) const;
  std::int64_t examples() const { return examples_; }

 private:
  struct Part {
    double slope, spread, reach;
  };
  static std::optional<Part> learn_part(const std::vector<RetrainedRemoval>& pairs);
  Part large_, small_;
  std::int64_t examples_;
  RemovalConfidence(Part large, Part small, std::int64_t examples)
      : large_(large), small_(small), examples_(examples) {}
};

}  // namespace whence
