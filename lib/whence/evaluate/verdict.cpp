#include "whence/evaluate/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/stages/choice.h"

namespace whence {
namespace {

using Level = Verdict::Level;

constexpr double kMinimum = 1e-3;  // of an example's gradient: at a minimum
constexpr double kNear = 0.1;      // and near one
constexpr double kFailed = 0.1;    // relative residual of a solve that tells nothing
constexpr double kLoose = 1e-2;    // residuals that keep rankings

Verdict make(Level level, const std::string& reason) {
  const char* begin = level == Level::kTrusted ? "can be trusted"
                      : level == Level::kCare  ? "with care"
                      : level == Level::kNot   ? "cannot be trusted"
                                               : "too few to say";
  return {level, fmt::format("{}: {}", begin, reason)};
}

/// Two digits, or four where two would make it 1.
std::string correlation(double value) {
  return std::isnan(value) ? "undefined" : fmt::format("{:.{}f}", value, std::abs(value) >= 0.995 ? 4 : 2);
}

std::string with_interval(double value, const Interval& interval) {
  return std::isnan(interval.low) ? correlation(value)
                                  : fmt::format("{} (95 % {} to {})", correlation(value), correlation(interval.low),
                                                correlation(interval.high));
}

/// Draws that narrow an interval of `width` to `wanted`: widths fall as the root of their number.
std::int64_t enough(std::int64_t draws, double width, double wanted) {
  const double factor = std::isnan(width) ? 4 : std::pow(std::max(1.0, width / wanted), 2);
  const auto rounded = static_cast<std::int64_t>(std::ceil(static_cast<double>(draws) * factor / 10) * 10);
  return std::max<std::int64_t>(rounded, 20);
}

std::string more(const char* flag, std::int64_t count, double seconds) {
  return fmt::format("--{} {} takes about {}", flag, count, duration_words(static_cast<double>(count + 1) * seconds));
}

/// "no minimum (gradient 1.0e-02 of an example's)"
std::string no_minimum(const StageEvidenceSummary& at) {
  return fmt::format("no minimum (gradient {:.1e} of an example's{})", at.relative_gradient,
                     at.stopped_early ? ", stopped early by its validation" : "");
}

std::optional<Verdict> stage_verdict(const StageEvidenceSummary& at, const RankingEvidence& evidence, Level level) {
  if (level == Level::kNot) {
    if (at.beyond_range) {
      return make(level,
                  fmt::format("removals of examples of {} are predicted beyond what the measurement can change{}",
                              at.stage, at.more_damping.empty() ? "" : "; type " + at.more_damping));
    }
    const auto more_damping = !evidence.curved ? std::string()
                              : at.damping > 0 ? fmt::format("; type --damping {:.3g}", 10 * at.damping)
                                               : fmt::format("; type --damping {}", kTrainingDamping);
    if (at.unconverged > 0 && !(at.residual <= kFailed)) {
      return make(level, fmt::format("{} of {} solves at {} failed (relative residual {:.1e}){}", at.unconverged,
                                     at.solves, at.stage, at.residual, more_damping));
    }
    if (evidence.assumes_minimum && evidence.hessian && at.gauss_newton && at.relative_gradient > kNear) {
      return make(level,
                  fmt::format("the checkpoint of {} is {}, which the Hessian assumes; type --curvature gauss-newton",
                              at.stage, no_minimum(at)));
    }
    return std::nullopt;
  }
  if (!evidence.curved) {
    return std::nullopt;
  }
  if (at.leverage >= 1) {
    return make(level,
                fmt::format("the fit at {} rests on example {} (leverage {:.2g}): what leaving it out does cannot "
                            "be predicted",
                            at.stage, at.leans_on, at.leverage));
  }
  if (at.leverage > 0) {
    return make(level,
                fmt::format("the fit at {} leans on example {} (leverage {:.2g}): what leaving it out does is about "
                            "{:.2g} times what is predicted",
                            at.stage, at.leans_on, at.leverage, 1 / (1 - at.leverage)));
  }
  if (at.unconverged > 0) {
    return make(level, fmt::format("{} of {} solves at {} stopped early, at a relative residual of {:.1e}",
                                   at.unconverged, at.solves, at.stage, at.residual));
  }
  const bool off_minimum = evidence.assumes_minimum && at.relative_gradient > kMinimum;
  const auto gradient = "its checkpoint is " + no_minimum(at);
  if (at.approximate > 0) {
    return make(level,
                fmt::format("the solves at {} are approximations{}{}", at.stage,
                            at.residual >= 0 ? fmt::format(", at a relative residual of {:.1e}", at.residual) : "",
                            at.residual >= 1 ? ", which may keep order but no sizes" : ""));
  }
  if (!evidence.hessian) {
    return make(level, fmt::format("the curvature at {} is an approximation, which keeps order better than size{}",
                                   at.stage, off_minimum ? "; " + gradient : ""));
  }
  if (!evidence.assumes_minimum && at.relative_gradient > kMinimum) {
    return make(level, fmt::format("the training of {} is followed as descent by the curvature at its end, or in some "
                                   "segments by that at theirs",
                                   at.stage));
  }
  if (off_minimum) {
    return make(level, fmt::format("at {} {}, and removals are told as if it were one", at.stage, gradient));
  }
  if (at.residual > kLoose) {
    return make(level, fmt::format("the solves at {} have a relative residual of {:.1e}", at.stage, at.residual));
  }
  if (at.damping > 0 && !(at.damping < 0.1 * at.mean_eigenvalue)) {
    return make(level,
                fmt::format("a damping of {:.3g} at {} makes removals smaller than they are", at.damping, at.stage));
  }
  return std::nullopt;
}

}  // namespace

std::string duration_words(double seconds) {
  const auto say = [](double count, const char* unit) {
    const auto whole = std::max<std::int64_t>(1, std::llround(count));
    return fmt::format("{} {}{}", whole, unit, whole == 1 ? "" : "s");
  };
  return seconds < 9.5       ? fmt::format("{:.2g} s", seconds)
         : seconds < 90      ? fmt::format("{} s", std::max<std::int64_t>(1, std::llround(seconds)))
         : seconds < 90 * 60 ? say(seconds / 60, "minute")
                             : say(seconds / 3600, "hour");
}

Verdict judge(const Agreement& a) {
  const auto& [low, high] = a.interval;
  const bool lone = a.apart >= 0 && a.examples > 3 && a.without >= 0.9 && !(a.pearson >= 0.8);
  const auto found = fmt::format(
      "Pearson {} over {} examples{}", with_interval(a.pearson, a.interval), a.examples,
      lone ? fmt::format(", {} without example {}, whose removal stands apart", correlation(a.without), a.apart) : "");
  if (std::isnan(a.pearson)) {
    return make(Level::kNot, found + ": predictions or retrainings do not differ between examples");
  }
  const bool sized = !a.sizes || (a.slope >= 0.8 && a.slope <= 1.25);
  constexpr double kOrdered = 0.5;
  if (low >= 0.8 && a.spearman < kOrdered) {
    return make(
        Level::kCare,
        fmt::format("{}, by a few large changes: of all the ranks agree to {}{}", found, correlation(a.spearman),
                    sized ? "" : fmt::format("; changes are {:.2g} times what is predicted", a.slope)));
  }
  if (low >= 0.8) {
    return sized ? make(Level::kTrusted, a.sizes ? fmt::format("{}, slope {:.2f}", found, a.slope) : found)
                 : make(Level::kCare, fmt::format("{}: the order holds, but changes are {:.2g} times what is predicted",
                                                  found, a.slope));
  }
  if (high < 0.5) {
    return make(Level::kNot, found + ": retraining says otherwise");
  }
  if (std::isnan(low) || high - low > 0.4) {
    const auto wanted = std::min(enough(a.examples, high - low, 0.4), a.available);
    return make(Level::kTooFew,
                wanted > a.examples ? fmt::format("{}; {}", found, more("examples", wanted, a.seconds)) : found);
  }
  return make(Level::kCare,
              fmt::format("{}: roughly right{}", found,
                          sized ? "" : fmt::format(", and changes are {:.2g} times what is predicted", a.slope)));
}

Verdict judge(const SubsetAgreement& a) {
  const auto& [low, high] = a.interval;
  const auto found = fmt::format("LDS {} over {} subsets", with_interval(a.score, a.interval), a.subsets);
  if (std::isnan(a.score)) {
    return make(Level::kNot, found + ": scores or retrainings do not differ between subsets");
  }
  if (low >= 0.5) {
    return make(Level::kTrusted, found);
  }
  if (high < 0.2) {
    return make(Level::kNot, found + ": little better than chance");
  }
  if (std::isnan(low) || high - low > 0.3) {
    return make(Level::kTooFew,
                fmt::format("{}; {}", found, more("subsets", enough(a.subsets, high - low, 0.3), a.seconds)));
  }
  return make(Level::kCare, found + ": better than chance, far from exact");
}

Verdict judge(const RankingEvidence& evidence) {
  if (evidence.claim == Claim::kNothing) {
    return make(Level::kNot, fmt::format("{} is a baseline that knows nothing", evidence.method));
  }
  for (const auto& stage : evidence.stages) {
    if (stage.guesses) {
      return make(Level::kNot, fmt::format("the checkpoint of {} is no better than a guess on its own examples: what "
                                           "is ranked is not what was trained on them",
                                           stage.stage));
    }
  }
  if (evidence.evaluated && evidence.evaluated->level != Level::kTooFew) {
    return *evidence.evaluated;
  }
  const auto retrained = evidence.evaluated ? fmt::format("; retraining: {}", evidence.evaluated->text) : "";
  const auto check = retrained + (evidence.check.empty() ? "" : fmt::format("; to check: {}", evidence.check));
  for (const auto level : {Level::kNot, Level::kCare}) {
    for (const auto& stage : evidence.stages) {
      if (auto found = stage_verdict(stage, evidence, level)) {
        found->text += check;
        return *found;
      }
    }
  }
  if (evidence.passes == "bfloat16") {
    return make(Level::kCare, "passes in bfloat16 keep three digits of each gradient; type --dtype float32" + check);
  }
  if (!evidence.warnings.empty()) {
    return make(Level::kCare, evidence.warnings.front() + check);
  }
  if (!evidence.curved) {
    return make(Level::kCare, fmt::format("{} {}, which this run cannot check{}", evidence.method,
                                          evidence.claim == Claim::kOrder ? "orders examples and predicts no removal"
                                                                          : "predicts removals by an approximation",
                                          check));
  }
  for (const auto& stage : evidence.stages) {
    if (!stage.through.empty()) {
      return make(Level::kCare, fmt::format("removals at {} are told as if {} kept to its minimum, and without an "
                                            "example it may end at another{}",
                                            stage.stage, stage.through, check));
    }
  }
  double gradient = 0, residual = 0;
  for (const auto& stage : evidence.stages) {
    gradient = std::fmax(gradient, stage.relative_gradient);
    residual = std::fmax(residual, stage.residual);
  }
  return make(Level::kTrusted,
              (residual > 0 ? fmt::format("every solve within {:.1e}", residual) : std::string("solved exactly")) +
                  (evidence.assumes_minimum
                       ? fmt::format(", every checkpoint at a minimum (gradient {:.1e} of an example's)", gradient)
                       : "") +
                  retrained);
}

}  // namespace whence
