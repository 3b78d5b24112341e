#include "whence/attribution/leverage.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

namespace whence {
namespace {

/// What the measurement of one query changes by where the last stage's parameters move.
double change_of(const Stage& last, const at::Tensor& move, const Dataset& query, Measurement measurement) {
  auto moved = last;
  const auto parts = unflatten(move, last.theta);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    moved.theta[i] = last.theta[i].detach() + parts[i].to(last.theta[i].scalar_type());
  }
  return (measure_all(measurement, moved, query) - measure_all(measurement, last, query)).item<double>();
}

}  // namespace

std::vector<PredictedRemoval> largest_removals(const at::Tensor& scores, std::int64_t count) {
  const auto n = static_cast<double>(scores.size(1));
  const auto ranks = std::min(count, scores.size(1));
  const auto rows = std::get<1>(scores.abs().topk(ranks, 1)).to(at::kCPU).contiguous();  // [Q, ranks]
  std::vector<PredictedRemoval> out;
  std::set<std::int64_t> seen;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    for (std::int64_t q = 0; q < scores.size(0); ++q) {
      const auto row = rows[q][rank].item<std::int64_t>();
      if (static_cast<std::int64_t>(out.size()) < count && seen.insert(row).second) {
        const auto most = scores.select(1, row).abs().argmax().item<std::int64_t>();
        out.push_back({most, row, -scores[most][row].item<double>() / n});
      }
    }
  }
  return out;
}

std::vector<Leverage> find_leverages(const Chain& chain, std::size_t stage, ScoreSource& source,
                                     std::vector<PredictedRemoval> removals, const Dataset& queries,
                                     Measurement measurement, double products, double solves) {
  constexpr double kShare = 0.02, kPassesAProduct = 6, kFewestProducts = 4;
  constexpr double kFew = 1. / 200;  // of the passes that take seconds
  const auto& at = chain[stage];
  const double passes =
      std::max(kShare * kPassesAProduct * products, kFew * at.objective.affordable_passes(at.theta, at.parent));
  const double each = std::max(1.0, products / std::max(1.0, solves));
  // fewer of them exactly rather than all from below
  const auto exactly = static_cast<std::size_t>(passes / kPassesAProduct / (each + 1));
  const auto from_below = static_cast<std::size_t>(passes / kPassesAProduct / kFewestProducts);
  removals.resize(std::min(removals.size(), exactly > 0 ? exactly : from_below));
  std::vector<std::int64_t> rows;
  for (const auto& removal : removals) {
    rows.push_back(removal.row);
  }
  const auto found = rows.empty() ? std::nullopt : source.leave_out(stage, at::tensor(rows, at::kLong), each, passes);
  std::vector<Leverage> out;
  for (std::size_t i = 0; found && i < removals.size(); ++i) {
    const auto k = static_cast<std::int64_t>(i);
    Leverage one{removals[i], found->leverages[k].item<double>(), found->from_below};
    if (!(one.leverage > kLeverage)) {
      continue;
    }
    if (!one.from_below && one.leverage < 1 && stage + 1 == chain.size()) {
      one.second_order =
          change_of(at, found->moves[k], queries.take(at::tensor({one.removal.query}, at::kLong)), measurement);
    }
    out.push_back(one);
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.leverage > b.leverage; });
  return out;
}

}  // namespace whence
