#include "whence/evaluate/confidence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

namespace whence {
namespace {

constexpr std::array kSpreads{0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0};

struct Fit {
  double slope = 1, spread = 1;
};

double width_of(const RetrainedRemoval& pair, double spread) {
  return std::hypot(pair.predicted, spread * pair.typical);
}

/// Of the pairs but those of example `without`. Errors have Laplace's density, of a width that is known but for one
/// factor, which falls out.
Fit fit(const std::vector<RetrainedRemoval>& pairs, std::optional<std::int64_t> without) {
  Fit best;
  double least = INFINITY;
  for (const double spread : kSpreads) {
    double xx = 0, xy = 0;
    for (const auto& pair : pairs) {
      const double width = width_of(pair, spread);
      if (pair.example != without && width > 0) {
        xx += pair.predicted * pair.predicted / (width * width);
        xy += pair.predicted * pair.actual / (width * width);
      }
    }
    const double slope = xx > 0 ? xy / xx : 1;
    double errors = 0, widths = 0, count = 0;
    for (const auto& pair : pairs) {
      const double width = width_of(pair, spread);
      if (pair.example != without && width > 0) {
        errors += std::abs(pair.actual - slope * pair.predicted) / width;
        widths += std::log(width);
        ++count;
      }
    }
    const double surprise = count * std::log(errors + 1e-300) + widths;
    if (surprise < least) {
      least = surprise;
      best = {slope, spread};
    }
  }
  return best;
}

bool is_large(double predicted, double typical) { return std::abs(predicted) >= 0.5 * typical; }

std::set<std::int64_t> examples_of(const std::vector<RetrainedRemoval>& pairs) {
  std::set<std::int64_t> out;
  for (const auto& pair : pairs) {
    out.insert(pair.example);
  }
  return out;
}

}  // namespace

std::optional<RemovalConfidence::Part> RemovalConfidence::learn_part(const std::vector<RetrainedRemoval>& pairs) {
  const auto examples = examples_of(pairs);
  if (static_cast<std::int64_t>(examples.size()) < kFewest) {
    return std::nullopt;
  }
  std::vector<double> errors;
  for (const auto example : examples) {
    const auto others = fit(pairs, example);
    for (const auto& pair : pairs) {
      if (pair.example == example) {
        const double width = width_of(pair, others.spread);
        errors.push_back(width > 0 ? std::abs(pair.actual - others.slope * pair.predicted) / width : 0);
      }
    }
  }
  std::sort(errors.begin(), errors.end());
  const auto count = static_cast<double>(errors.size());
  const auto place = static_cast<std::size_t>(std::min(count, std::ceil((count + 1) * kLevel))) - 1;
  const auto all = fit(pairs, std::nullopt);
  return Part{all.slope, all.spread, errors[place]};
}

std::optional<RemovalConfidence> RemovalConfidence::learn(const std::vector<RetrainedRemoval>& pairs) {
  std::vector<RetrainedRemoval> large, small;
  for (const auto& pair : pairs) {
    if (!std::isfinite(pair.predicted) || !std::isfinite(pair.actual) || !std::isfinite(pair.typical)) {
      return std::nullopt;
    }
    (is_large(pair.predicted, pair.typical) ? large : small).push_back(pair);
  }
  const auto all = learn_part(pairs);
  if (!all) {
    return std::nullopt;
  }
  return RemovalConfidence(learn_part(large).value_or(*all), learn_part(small).value_or(*all),
                           static_cast<std::int64_t>(examples_of(pairs).size()));
}

Interval RemovalConfidence::interval(double predicted, double typical) const {
  const auto& part = is_large(predicted, typical) ? large_ : small_;
  const double middle = part.slope * predicted;
  const double reach = part.reach * std::hypot(predicted, part.spread * typical);
  return {middle - reach, middle + reach};
}

}  // namespace whence
