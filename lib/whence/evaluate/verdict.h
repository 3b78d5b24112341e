#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "whence/attribution/attributor.h"
#include "whence/evaluate/statistics.h"

namespace whence {

/// How far a result can be trusted: one line that begins with "can be trusted:", "with care:", "cannot be trusted:" or,
/// where the evidence decides nothing, "too few to say:".
struct Verdict {
  enum class Level { kTrusted, kCare, kNot, kTooFew };
  Level level = Level::kCare;
  std::string text;
};

/// How predicted changes agree with those that retraining made.
struct Agreement {
  double pearson = 0;
  Interval interval{0, 0};  ///< Of the Pearson correlation, 95 %: correlation_interval of the examples.
  double spearman = NAN;    ///< Of ranks; NaN: not known.
  double slope = 1;         ///< Of actual on predicted.
  bool sizes = true;        ///< Whether the method predicts sizes, so that a slope of 1 is expected.
  std::int64_t examples = 0;
  std::int64_t available = 0;  ///< Examples that could be left out.
  std::int64_t apart = -1;     ///< The one whose removal was predicted worst, by id; -1: not known ...
  double without = 0;          ///< ... and the Pearson correlation of the others.
  double seconds = 0;          ///< A retraining took.
};
/// Trusted where the whole interval is above 0.8 (and the slope within 0.8 to 1.25, and the rank correlation no less
/// than 0.5, or else a few large changes make the other), not where it is below 0.5 or no better than chance. Too few:
/// an interval wider than 0.4 that settles neither; says how many examples would narrow it to that, and how long they
/// take.
Verdict judge(const Agreement& agreement);

/// A linear datamodelling score: the mean rank correlation of summed scores with what trainings on subsets gave.
struct SubsetAgreement {
  double score = 0;
  Interval interval{0, 0};  ///< 95 %.
  std::int64_t subsets = 0;
  double seconds = 0;  ///< A retraining took.
};
/// Trusted where the whole interval is above 0.5, not where it is below 0.2. Too few: one wider than 0.3 that settles
/// neither.
Verdict judge(const SubsetAgreement& agreement);

/// What is known of the part in a ranking of a stage that was solved for. Whatever was not measured is NaN or 0.
struct StageEvidenceSummary {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  std::string stage;
  double relative_gradient = kUnknown;  ///< |gradient| at the checkpoint, of an example's.
  double damping = 0;
  double mean_eigenvalue = kUnknown;
  std::int64_t solves = 0, unconverged = 0, approximate = 0;
  double residual = kUnknown;     ///< The largest relative one.
  bool beyond_range = false;      ///< A removal is predicted to change the measurement by more than it can change ...
  std::string more_damping = {};  ///< ... which these flags would mend; empty where none is known.
  double leverage = kUnknown;     ///< The largest above kLeverage that was met (attribution/leverage.h) ...
  std::int64_t leans_on = -1;     ///< ... and the example's id.
  bool gauss_newton = true;       ///< Whether there is one, and not the Hessian alone.
  bool stopped_early = false;     ///< Training ended by its validation, not at a minimum.
  bool guesses = false;           ///< Its model is no better than a guess on its own examples.
  std::string through = {};       ///< A later stage that its scores go through and that adds to its body: such a tuning
                                  ///< has several minima, and which it ends at may change with an example.
};

/// What a ranking rests on.
struct RankingEvidence {
  std::string method;
  Claim claim = Claim::kRemoval;
  bool curved = true;           ///< It solves with a curvature.
  bool hessian = true;          ///< That curvature is the Hessian itself, which is positive at minima alone.
  bool assumes_minimum = true;  ///< Response::kStationary.
  std::string passes = {};      ///< The dtype of the model's passes, as --dtype spells it.
  std::vector<StageEvidenceSummary> stages = {};
  std::vector<std::string> warnings = {};
  std::optional<Verdict> evaluated = {};  ///< Against retraining; decides where it settles anything.
  std::string check = {};                 ///< The command that would evaluate it.
};
/// Not trusted: no method's knowledge, a model that guesses, solves that failed, a Hessian far from a minimum,
/// predictions out of range. With care: any approximation or assumption that was not checked. Says what to type where
/// something can be typed.
Verdict judge(const RankingEvidence& evidence);

/// A time as a person says it: "40 s", "9 minutes", "3 hours".
std::string duration_words(double seconds);

}  // namespace whence
