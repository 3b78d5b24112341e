#include "whence/icl/advice.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/icl/detail/checks.h"
#include "whence/icl/detail/layers.h"

namespace whence {
namespace {

constexpr std::int64_t kShuffles = 199;
constexpr double kChance = 0.1, kRare = 0.15;

/// Of each row of `foretold` [..., C]: the value of its class less the largest other; and which that is.
std::pair<at::Tensor, at::Tensor> margins(const at::Tensor& foretold, const at::Tensor& labels) {
  const auto column = labels.unsqueeze(-1);
  const auto [others, which] = foretold.scatter(-1, column, -INFINITY).max(-1);
  return {foretold.gather(-1, column).squeeze(-1) - others, which};
}

void sort_by(std::vector<Advice::Drop>& drop, const at::Tensor& self) {
  std::stable_sort(drop.begin(), drop.end(), [&](const Advice::Drop& a, const Advice::Drop& b) {
    return self[a.demonstration].item<double>() > self[b.demonstration].item<double>();
  });
}

}  // namespace

std::optional<Advice> IclMethod::advise(const IclTask&, const IclScores&, const at::Tensor&) const {
  return std::nullopt;
}

Advice advise_by_labels(const IclTask& task, const IclScores& scores, const RidgeOptions& options,
                        const at::Tensor& helpful) {
  const at::NoGradGuard no_gradient;
  const auto n = task.demonstrations(), classes = task.classes;
  const auto labels = task.labels.cpu();
  Advice out;
  if (n < 2 || classes < 2) {
    out.thin = true;
    out.reason = n < 2 ? "one demonstration has no others to judge it by"
                       : "every demonstration has the same output, so none contradicts another";
    return out;
  }
  const auto [margin, instead] = margins(scores.foretold, labels);
  // every shuffle's labels side by side: [n, shuffles, C]
  Random random(0);
  std::vector<at::Tensor> orders;
  for (std::int64_t k = 0; k < kShuffles; ++k) {
    orders.push_back(labels.index_select(0, random.permutation(n)));
  }
  const auto shuffled = at::stack(orders, 1);
  const auto targets = at::arange(classes, at::kLong).eq(shuffled.unsqueeze(2)).to(at::kDouble);
  const auto by_chance =
      margins(foretold(task, options, targets.view({n, -1})).view({n, kShuffles, classes}), shuffled).first;
  const auto as_orderly = by_chance.mean(0).ge(margin.mean()).sum().item<std::int64_t>();
  out.chance = static_cast<double>(1 + as_orderly) / (1 + kShuffles);
  const auto agree = margin.gt(0).sum().item<std::int64_t>();
  const auto all = by_chance.flatten();
  out.reason = fmt::format("the others foretell {} of {} labels (shuffled labels look as orderly in {:.1f} % of cases)",
                           agree, n, 100 * out.chance);
  out.thin = out.chance > kChance;
  if (out.thin) {
    return out;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const bool rare = all.le(margin[i]).to(at::kDouble).mean().item<double>() <= kRare;
    const bool helps = helpful.defined() && helpful[i].item<double>() > 0;
    if (margin[i].item<double>() < 0 && rare && !helps) {
      out.drop.push_back({i, instead[i].item<std::int64_t>()});
    }
  }
  sort_by(out.drop, scores.self);
  return out;
}

Advice advise_by_surprisal(const at::Tensor& surprisal) {
  constexpr double kNats = 5, kDeviations = 4;
  constexpr std::int64_t kFew = 5;
  detail::check_values(surprisal, "surprisals", {-1}, "[n]");
  const at::NoGradGuard no_gradient;
  const auto values = surprisal.to(at::kCPU, at::kDouble);
  Advice out;
  if (values.size(0) < kFew) {
    out.thin = true;
    out.reason =
        fmt::format("{} demonstrations are too few to say which output stands out, expected 5 or more", values.size(0));
    return out;
  }
  const auto median = values.median(), deviation = (values - median).abs().median() * 1.4826;
  const double usual = median.item<double>();
  const double most = usual + std::max(kNats, kDeviations * deviation.item<double>());
  for (std::int64_t i = 0; i < values.size(0); ++i) {
    if (values[i].item<double>() > most) {
      out.drop.push_back({i});
    }
  }
  sort_by(out.drop, values);
  out.reason =
      fmt::format("an output costs the model {:.2g} nats in the median, and from {:.2g} stands out", usual, most);
  return out;
}

}  // namespace whence
