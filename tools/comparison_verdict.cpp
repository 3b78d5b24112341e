#include "comparison_verdict.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "json.h"
#include "verdict.h"
#include "whence/attribution/attributor.h"

namespace whence::cli {
namespace {

using Level = Verdict::Level;

/// A method's row.
struct Standing {
  std::string method, command;  ///< Of `whence rank`; empty: it has none.
  Truth::Figure figure;
  double seconds = 0;
  double share = 0;  ///< Of the ceiling; NaN: not known.
  Interval share_interval{0, 0};
};

double number_in(const Json& row, const char* key) {
  return row.contains(key) && row[key].is_number() ? row[key].get<double>() : std::nan("");
}

/// The best first.
std::vector<Standing> standings(const Json& result, const Truth& truth) {
  std::vector<Standing> out;
  for (const auto& row : result["table"]) {
    out.push_back({row["method"].get<std::string>(), row.value("rank", ""), truth.figure(row),
                   number_in(row, "seconds"), number_in(row, "share-of-ceiling"),
                   interval_of({row, "evaluation.json"}, "share-interval-95")});
  }
  std::erase_if(out, [](const Standing& at) { return !std::isfinite(at.figure.value); });
  std::stable_sort(out.begin(), out.end(),
                   [](const Standing& a, const Standing& b) { return a.figure.value > b.figure.value; });
  return out;
}

/// Whether it is a baseline, which shows what chance reaches.
bool is_chance(const Standing& at) {
  return is_method<Attributor>(at.method) && create<Attributor>(at.method)->claim() == Claim::kNothing;
}

std::string figure_text(const Truth::Figure& figure) {
  return fmt::format("{} {:.3g} (95 % {:.3g} to {:.3g})", figure.name, figure.value, figure.interval.low,
                     figure.interval.high);
}

}  // namespace

Verdict verdict_of_comparison(const Json& result, const Truth& truth) {
  auto all = standings(result, truth);
  const auto chance = std::find_if(all.begin(), all.end(), is_chance);
  const double by_chance = chance == all.end() ? 0 : chance->figure.interval.high;
  std::erase_if(all, is_chance);
  if (all.empty()) {
    return {Level::kTooFew, "too few to say: no method has a number here"};
  }
  const auto& best = all.front();
  const auto more = "more " + truth.more();
  if (!(best.figure.interval.low > by_chance)) {
    // what a few examples do is then lost in what the seed does
    const auto advice = !truth.ceiling_is_chance(result) ? more + " would tell"
                        : truth.more() == "--examples"
                            ? "nor is training with another seed, which does more here than an example: --against lds, "
                              "which leaves halves out, tells more"
                            : "nor is training with another seed, which does more here than what is left out";
    return {Level::kTooFew, fmt::format("too few to say: no method is apart from chance, the best, {}, has {}; {}",
                                        best.method, figure_text(best.figure), advice)};
  }
  std::vector<Standing> level{best};  // those that may be as good
  std::copy_if(all.begin() + 1, all.end(), std::back_inserter(level),
               [&](const Standing& at) { return at.figure.interval.high >= best.figure.interval.low; });
  auto found = fmt::format("{} agrees best, {}", best.method, figure_text(best.figure));
  if (std::isfinite(best.share)) {
    found += ", " + share_text(best.share, best.share_interval);
  }
  std::vector<std::string> others;
  std::transform(level.begin() + 1, level.end(), std::back_inserter(others),
                 [](const Standing& at) { return at.method; });
  found += others.empty() ? ", apart from all others" : fmt::format("; not apart from it: {}", fmt::join(others, ", "));
  constexpr double kNearly = 0.95;  // of the best: what a quicker method may lose
  std::erase_if(
      level, [&](const Standing& at) { return at.command.empty() || at.figure.value < kNearly * best.figure.value; });
  const auto quickest = std::min_element(level.begin(), level.end(),
                                         [](const Standing& a, const Standing& b) { return a.seconds < b.seconds; });
  if (quickest != level.end()) {
    found += fmt::format(
        "{}; type {}",
        quickest->method == best.method
            ? ""
            : fmt::format("; the quickest of those within 5 % is {}, {:.2g} s", quickest->method, quickest->seconds),
        quickest->command);
  }
  if (!others.empty()) {
    found += fmt::format("; {} would tell them apart", more);
  }
  constexpr double kShare = 0.8;  // of the ceiling
  const auto reservation = reservation_text({result, "evaluation.json"});
  bool good = best.figure.interval.low >= best.figure.good || best.share_interval.low >= kShare;
  if (!good && best.share_interval.low < kShare && best.share_interval.high >= kShare) {
    found += fmt::format("; whether it reaches {:g} of that cannot be told yet: {} would", kShare, more);
  }
  if (!reservation.empty()) {
    good = false;
    found += "; " + reservation;
  }
  return {good ? Level::kTrusted : Level::kCare, (good ? "can be trusted: " : "with care: ") + found};
}

EvaluationSection comparison_section(const Json& result, const Truth& truth) {
  EvaluationSection out{.title = fmt::format("Methods against {}", result["against"].get<std::string>())};
  IntervalPlot plot{.title = out.title};
  for (const auto& at : standings(result, truth)) {
    plot.x_title = at.figure.name;
    plot.rows.push_back({at.method, at.figure.value, at.figure.interval.low, at.figure.interval.high});
    out.figures.push_back(
        {at.method,
         fmt::format("{:.3g} [{:.3g}, {:.3g}]", at.figure.value, at.figure.interval.low, at.figure.interval.high),
         Fact::State::kPlain,
         fmt::format("{}{:.2g} s", std::isfinite(at.share) ? fmt::format("{:.2f} of the ceiling, ", at.share) : "",
                     at.seconds)});
  }
  if (const auto& reached = result.contains("ceiling") ? result["ceiling"] : Json(); reached.is_object()) {
    plot.ceiling = reached.begin()->get<double>();
    out.figures.push_back({"ceiling: another seed", fmt::format("{:.3g}", *plot.ceiling)});
  }
  out.intervals = std::move(plot);
  return out;
}

}  // namespace whence::cli
