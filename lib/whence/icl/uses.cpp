#include "whence/icl/uses.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "whence/core/error.h"
#include "whence/icl/detail/checks.h"
#include "whence/icl/detail/layers.h"
#include "whence/icl/detail/words.h"

namespace whence {
namespace {

std::vector<std::int64_t> order_of(const at::Tensor& values, bool descending) {
  const auto order = std::get<1>(values.sort(/*stable=*/true, 0, descending)).cpu().contiguous();
  return {order.const_data_ptr<std::int64_t>(), order.const_data_ptr<std::int64_t>() + order.numel()};
}

std::vector<std::int64_t> falling(const at::Tensor& self) {
  detail::check_values(self, "self scores", {-1}, "[n]");
  return order_of(self, true);
}

/// Of test scores over the queries: [n].
at::Tensor mean_over_queries(const at::Tensor& test) {
  detail::check_values(test, "test scores", {-1, -1}, "[q, n]");
  return test.to(at::kDouble).mean(0);
}

void check_count(std::string_view what, std::int64_t count, std::int64_t available) {
  if (count < 1 || count > available) {
    throw InvalidArgument(fmt::format("icl: {} = {}, expected 1 .. {}", what, count, available));
  }
}

constexpr std::array<std::pair<Reordering, std::string_view>, 2> kReorderings{
    {{Reordering::kTwoHighestFirst, "two-highest-first"}, {Reordering::kDescending, "descending"}}};

}  // namespace

std::vector<std::int64_t> suspects(const at::Tensor& self) { return falling(self); }

std::vector<std::int64_t> curate(const at::Tensor& test, std::int64_t keep) {
  auto order = order_of(mean_over_queries(test), true);
  check_count("demonstrations to keep", keep, static_cast<std::int64_t>(order.size()));
  order.resize(static_cast<std::size_t>(keep));
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<std::int64_t> removal_order(const at::Tensor& test, Removal removal) {
  return order_of(mean_over_queries(test), removal == Removal::kMostHelpfulFirst);
}

Reordering parse_reordering(std::string_view word) { return detail::parse_word("reordering", word, kReorderings); }

Arrangement reorder(const at::Tensor& self, Reordering reordering) {
  auto order = falling(self);
  const auto scored = [&](std::int64_t i) { return fmt::format("{} ({:.3g})", i, self[i].item<double>()); };
  if (reordering == Reordering::kDescending || order.size() <= 2) {
    return {order, fmt::format("falling self scores: {} is explained least by the others and comes first, {} last",
                               scored(order.front()), scored(order.back()))};
  }
  const auto last = order.begin() + 2;
  auto rest = order_of(self, false);
  std::erase_if(rest, [&](std::int64_t i) { return std::find(order.begin(), last, i) != last; });
  std::copy(rest.begin(), rest.end(), last);
  auto reason = fmt::format(
      "the highest self scores, {} and {}, come first: the others explain them least; then rising self scores, from {} "
      "to "
      "{}",
      scored(order[0]), scored(order[1]), scored(order[2]), scored(order.back()));
  return {std::move(order), std::move(reason)};
}

namespace {

/// One layer's regression on the chosen, of the whole pool and the validation set. With c(x, z) = m_x H^-1 m_z', H
/// being lambda I and the m'm of the chosen, choosing z moves the value at x by c(x, z) r_z / (1 + c(z, z)).
struct Choosing {
  at::Tensor pool, validation;  // c: [N, N] and [q, N]
  at::Tensor residuals;         // y - value, of the pool: [N, C]
  at::Tensor errors;            // value - y, of the validation set: [q, C]

  /// By how much each of the pool would change the sum of |error|^2 / 2: [N].
  at::Tensor changes() const {
    const auto share = 1 / (1 + pool.diagonal());
    const auto slope = (validation.t().mm(errors) * residuals).sum(1);
    const auto curvature = validation.square().sum(0) * residuals.square().sum(1);
    return share * slope + share.square() * curvature / 2;
  }

  void choose(std::int64_t z) {
    const auto near = pool.select(1, z).clone(), far = validation.select(1, z).clone();
    const auto share = 1 / (1 + near[z]);
    const auto step = residuals[z] * share;
    residuals -= at::outer(near, step);
    errors += at::outer(far, step);
    pool -= at::outer(near * share, near);
    validation -= at::outer(far * share, near);
  }
};

}  // namespace

Selection select_demonstrations(const IclTask& pool, std::int64_t count, const RidgeOptions& options) {
  const at::NoGradGuard no_gradient;
  const detail::Layers layers(pool, options);
  check_count("demonstrations to select", count, pool.demonstrations());
  const auto q = pool.queries();
  if (q == 0) {
    throw InvalidArgument("icl: 0 queries, expected at least 1 to select demonstrations for");
  }
  const auto targets = detail::targets_of(pool), errors = -detail::query_targets_of(pool);
  const auto unknown = errors.isnan().any(1).nonzero();
  if (unknown.size(0) > 0) {
    throw InvalidArgument(fmt::format("icl: the label of query {} is not known, but selection needs every query's",
                                      unknown[0][0].item<std::int64_t>()));
  }
  std::vector<Choosing> choosing;
  for (std::int64_t index = 0; index < layers.count(); ++index) {
    const auto layer = layers.fit(index);
    const auto rows = layers.query_features(index, layer, 0, q);
    choosing.push_back({layer.kernel(layer.features, layer.features) / options.lambda,
                        layer.kernel(rows, layer.features) / options.lambda, targets.clone(), errors.clone()});
  }
  Selection selection;
  auto taken = at::zeros({pool.demonstrations()}, at::kBool);
  for (std::int64_t k = 0; k < count; ++k) {
    auto changes = at::zeros({pool.demonstrations()}, at::kDouble);
    for (const auto& layer : choosing) {
      changes += layer.changes();
    }
    const auto next = changes.masked_fill_(taken, INFINITY).argmin().item<std::int64_t>();
    taken[next] = true;
    double loss = 0;
    for (auto& layer : choosing) {
      layer.choose(next);
      loss += layer.errors.square().sum().item<double>() / 2;
    }
    selection.chosen.push_back(next);
    selection.losses.push_back(loss / static_cast<double>(q));
  }
  return selection;
}

}  // namespace whence
