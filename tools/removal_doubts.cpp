// What is said of predicted removals that cannot be, or that are known to be off.
#include "removal_doubts.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "json.h"
#include "whence/attribution/plausible.h"
#include "whence/stages/choice.h"

namespace whence::cli {
namespace {

/// Flags with which removals that are predicted `excess` times too large by a `damping` become possible: the default
/// where none relative to the eigenvalues was asked for; else the square of that many times as much, and room. Of one
/// eigenvalue far below the damping, a removal's part falls as the damping rises; over a network's spectrum, as slowly
/// as its root. Empty where nothing is damped.
std::string more_damping(const InverseOptions* options, double damping, double excess) {
  constexpr double kRoom = 1.2;
  if (options == nullptr) {
    return {};
  }
  const double times = std::pow(kRoom * excess, 2), relative = options->relative_damping;
  return relative < kRelativeDamping ? fmt::format("--damping {}", kTrainingDamping)
         : !options->least_damping.empty() && damping > 0
             ? fmt::format("--damping {:g}", rounded_up(times * damping))
             : fmt::format("--relative-damping {:g}", rounded_up(times * relative));
}

}  // namespace

PredictedRemovals own_removals(const Stage& stage, const at::Tensor& scores, std::int64_t count,
                               const InverseOptions* inverse) {
  const auto& data = stage.objective.data();
  const auto rows = scores.abs().argsort(/*stable=*/true, 0, /*descending=*/true).slice(0, 0, count);
  const auto queries = data.take(rows);
  return {stage,
          (scores.index_select(0, rows) / -static_cast<double>(data.size())).unsqueeze(1),
          queries.ids(),
          queries,
          measure_all(Measurement::kLoss, stage, queries),
          Measurement::kLoss,
          inverse};
}

void doubt_beyond_range(const PredictedRemovals& predicted, RunRecord& record) {
  const auto& [stage, changes, examples, queries, measured, measurement, inverse] = predicted;
  const auto room = room_to_move(measurement, queries, measured, stage.objective.data());
  const auto excess = at::maximum(changes / room.select(1, 1).unsqueeze(1), -changes / room.select(1, 0).unsqueeze(1));
  const auto [worst, example] = excess.max(1);
  const auto beyond = worst.gt(1).sum().item<std::int64_t>();
  if (beyond == 0) {
    return;
  }
  const bool own = predicted.own();
  auto& told = record.json()["stages"][stage.name];
  const auto remedy = more_damping(inverse, told.value("damping", 0.0), worst.max().item<double>());
  told["queries-beyond-range"] = beyond;
  if (!remedy.empty()) {
    told["more-damping"] = remedy;
  }
  const auto q = worst.argmax().item<std::int64_t>();
  const auto e = example[q].item<std::int64_t>();
  record.warning(fmt::format(
      "stage {}: for {} of {} {} a removal is predicted that cannot be: leaving out example {}, one of {}, would move "
      "{} "
      "from {:.3g} by {:+.3g}: small eigenvalues of the curvature were divided by, or inputs are far out of scale{}",
      stage.name, beyond, queries.size(), own ? "examples looked at" : "queries",
      examples[own ? q : e].item<std::int64_t>(), stage.objective.data().size(),
      own ? "its own loss"
          : fmt::format("the {} of query {}", to_string(measurement), queries.ids()[q].item<std::int64_t>()),
      measured[q].item<double>(), changes[q][e].item<double>(), remedy.empty() ? "" : "; type " + remedy));
}

void doubt_leverages(const Stage& stage, const std::vector<Leverage>& leverages, const Dataset& queries,
                     RunRecord& record) {
  if (leverages.empty()) {
    return;
  }
  const auto example_of = [&](const Leverage& at) {
    return stage.objective.data().ids()[at.removal.row].item<std::int64_t>();
  };
  auto list = Json::array();
  for (const auto& at : leverages) {
    list.push_back({{"example", example_of(at)},
                    {"leverage", at.leverage},
                    {"from-below", at.from_below},
                    {"query", queries.ids()[at.removal.query].item<std::int64_t>()},
                    {"removal", at.removal.change},
                    {"second-order-removal", at.second_order}});
  }
  record.json()["stages"][stage.name]["leverages"] = list;
  const auto& worst = leverages.front();
  const auto others =
      leverages.size() == 1 ? std::string() : fmt::format(", and {} other examples'", leverages.size() - 1);
  const auto moved = &queries == &stage.objective.data()
                         ? std::string("its own loss")
                         : fmt::format("query {}", list[0]["query"].get<std::int64_t>());
  const auto change =
      std::isnan(worst.second_order)
          ? fmt::format("so that the {:+.3g} predicted for {} is as much too small", worst.removal.change, moved)
          : fmt::format("and changes {} by {:+.3g}, not by the {:+.3g} that is predicted", moved, worst.second_order,
                        worst.removal.change);
  record.doubt(
      worst.leverage < 1
          ? fmt::format(
                "stage {}: the fit leans on example {} (leverage {}{:.2g}{}): leaving it out moves the fit {}{:.2g} "
                "times as far as predicted, {}; whence evaluate trains without it",
                stage.name, example_of(worst), worst.from_below ? "at least " : "", worst.leverage, others,
                worst.from_below ? "at least " : "", 1 / (1 - worst.leverage), change)
          : fmt::format("stage {}: the fit rests on example {} (leverage {:.2g}{}): what leaving it out does cannot be "
                        "predicted; whence evaluate trains without it",
                        stage.name, example_of(worst), worst.leverage, others));
}

}  // namespace whence::cli
