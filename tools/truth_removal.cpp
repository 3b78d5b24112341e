// Trainings without the examples that a method finds the strongest, together.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "truth.h"
#include "whence/evaluate/lds.h"
#include "whence/evaluate/retraining.h"

namespace whence {
namespace cli {
namespace {

/// Draws of random that a removal is compared with.
constexpr std::int64_t kRandomRemovals = 4;

/// How much worse the queries' outcome becomes on the mean, as scores [Q, N] foretell of training with `weights` [N]:
/// to first order, or to second by scores of the curvature with those weights.
double foretold_worse(const Comparison& at, const at::Tensor& scores, const at::Tensor& weights) {
  const auto change = (scores * (weights - 1)).mean(1).mean().item<double>();
  return change * -outcome_sign(at.measurement());
}

class Removal : public Truth {
 public:
  explicit Removal(NoOptions) {}
  std::vector<std::string> flags() const override { return {"remove", "optimizer", "train-from"}; }

  std::optional<Json> compare(Comparison& at) const override {
    const auto n = at.data().size();
    const auto percents = removed_percents(at.line());
    const auto count = [&](double percent) {
      return std::clamp<std::int64_t>(std::llround(percent / 100 * static_cast<double>(n)), 1, n - 1);
    };
    std::vector<at::Tensor> weights{at::ones({1, n}, at::kDouble)};
    auto draws = at.random().stream("removals");
    for (std::int64_t r = 0; r < kRandomRemovals; ++r) {
      const auto order = draws.permutation(n);
      for (const double percent : percents) {
        weights.push_back(removal_weights(order.narrow(0, 0, count(percent)), n));
      }
    }
    const auto of_methods = std::count_if(at.methods().begin(), at.methods().end(),
                                          [](const auto& method) { return method.claim() != Claim::kNothing; }) *
                            static_cast<std::int64_t>(percents.size());
    if (at.planned({.weights = at::cat(weights),
                    .seeds = {0},
                    .later = of_methods,
                    .count_flag = "remove",
                    .scored_again = static_cast<std::int64_t>(percents.size())})) {
      return std::nullopt;
    }
    const auto methods = at.scored();
    std::vector<std::size_t> ranked;
    for (std::size_t m = 0; m < methods.size(); ++m) {
      if (methods[m].claim == Claim::kNothing) {
        continue;
      }
      ranked.push_back(m);
      const auto order = (methods[m].scores.mean(0) * outcome_sign(at.measurement())).argsort(/*stable=*/true, 0, true);
      for (const double percent : percents) {
        weights.push_back(removal_weights(order.narrow(0, 0, count(percent)), n));
      }
    }
    const auto all = at::cat(weights);
    const auto trained = at.train(all, {0});
    const double apart = at.check_repeats(trained[0].measurements[0]);
    // how much worse the outcome becomes, [M, Q]
    const auto worse = (trained[0].measurements.narrow(0, 1, all.size(0) - 1) - trained[0].measurements[0]) *
                       -outcome_sign(at.measurement());
    const auto bootstrap_draws = at.random().stream("bootstrap");
    Json out = at.told(trained);
    out["reference-apart"] = json_number(apart);
    out["removed-percent"] = percents;
    const auto P = static_cast<std::int64_t>(percents.size());
    const auto add = [&](const std::string& name, const std::function<at::Tensor(std::int64_t)>& change, Json seconds,
                         const std::function<Json(std::int64_t)>& foretold) {
      Json row{{"method", name}, {"removals", Json::array()}};
      for (std::int64_t p = 0; p < P; ++p) {
        const auto mean = mean_interval(change(p), bootstrap_draws);
        Json removal{{"percent", percents[static_cast<std::size_t>(p)]},
                     {"worse-by", mean.mean},
                     {"worse-by-interval-95", json_ends(mean.interval)}};
        removal.update(foretold(p));
        row["removals"].push_back(std::move(removal));
      }
      row["seconds"] = std::move(seconds);
      out["table"].push_back(std::move(row));
    };
    for (std::size_t r = 0; r < ranked.size(); ++r) {
      const auto& method = methods[ranked[r]];
      const auto first = P * (kRandomRemovals + static_cast<std::int64_t>(r));
      const auto foretold = [&](std::int64_t p) {
        Json keys = Json::object();
        if (method.claim == Claim::kRemoval) {
          const auto& without = all[1 + first + p];
          keys["foretold"] = foretold_worse(at, method.scores, without);
          const auto reweighted = at.scores_at(at.methods()[ranked[r]], without);
          keys["foretold-second-order"] = reweighted.defined() ? Json(foretold_worse(at, reweighted, without)) : Json();
        }
        return keys;
      };
      add(
          method.method, [&](std::int64_t p) { return worse[first + p]; }, method.seconds, foretold);
    }
    add(
        "random", [&](std::int64_t p) { return worse.slice(0, p, P * kRandomRemovals, P).mean(0); }, 0.0,
        [](std::int64_t) { return Json::object(); });
    return out;
  }

  /// Of the most that was left out.
  Figure figure(const Json& row) const override {
    const auto& removals = row["removals"];
    const auto most = std::max_element(removals.begin(), removals.end(), [](const Json& a, const Json& b) {
      return a["percent"].get<double>() < b["percent"].get<double>();
    });
    return figure_in(*most, "worse-by", fmt::format("without {:g} % worse by", (*most)["percent"].get<double>()), 0);
  }
  std::string more() const override { return "queries"; }
  Columns columns(const Json& row) const override {
    Columns out;
    for (const auto& removed : row["removals"]) {
      out.emplace_back(fmt::format("without {:g} %", removed["percent"].get<double>()),
                       interval_cell(removed["worse-by"], removed["worse-by-interval-95"], "{:+.3g}"));
      out.emplace_back("foretold", fmt::format("{} / {}", number_cell(removed.value("foretold", Json()), "{:+.3g}"),
                                               number_cell(removed.value("foretold-second-order", Json()), "{:+.3g}")));
    }
    return out;
  }
  std::string legend(const Json& result) const override {
    return fmt::format(
        "how much worse the queries' {} becomes, on the mean; foretold: by the sum of scores / with the "
        "curvature of what is left",
        result["measurement"].get<std::string>());
  }
};

}  // namespace
}  // namespace cli

WHENCE_METHOD(cli::Truth, removal, cli::Removal, NoOptions)

}  // namespace whence
