#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "whence/icl/ridge_view.h"

namespace whence {

/// What scores of demonstrations are good for. Demonstrations are numbered from 0 in the prompt's order; equal scores
/// keep that order. All throw InvalidArgument, naming the first, where a score is not finite: so are test scores of a
/// query without a label.

/// Every demonstration, the least explained by the others first, from self scores [n]: where to look for wrong labels.
std::vector<std::int64_t> suspects(const at::Tensor& self);

/// The `keep` demonstrations with the highest mean test score [q, n] over the queries, in the prompt's order. Throws
/// unless 1 <= keep <= n.
std::vector<std::int64_t> curate(const at::Tensor& test, std::int64_t keep);

enum class Removal { kMostHelpfulFirst, kLeastHelpfulFirst };
/// Every demonstration, in the order in which to take them out, by mean test score [q, n]. Taking the most helpful out
/// should hurt the answers sooner than taking the least helpful out: a test of the scores.
std::vector<std::int64_t> removal_order(const at::Tensor& test, Removal removal);

enum class Reordering {
  kTwoHighestFirst,  ///< The two highest self scores, then the rest rising: DETAIL's order.
  kDescending,       ///< Falling self scores: DETAIL's order for SST-2.
};
/// "two-highest-first" or "descending". Throws InvalidArgument with the known words.
Reordering parse_reordering(std::string_view word);

struct Arrangement {
  std::vector<std::int64_t> order;  ///< order[k] is the demonstration that comes k-th.
  std::string reason;               ///< For people.
};
/// A new order of the prompt, from self scores [n], which should be means over several orders, as a model's hidden
/// states depend on the order.
Arrangement reorder(const at::Tensor& self, Reordering reordering);

struct Selection {
  std::vector<std::int64_t> chosen;  ///< In the order of choice.
  std::vector<double> losses;        ///< After each choice: mean over the queries, summed over layers.
};
/// `count` of a pool's demonstrations for a validation set, the task's queries, which must all have labels: one after
/// another, each time the one that lowers the mean of |m_t beta - y_t|^2 / 2 most, beta being the regression on those
/// chosen so far. This is exact, unlike the best `count` test scores, which would take two copies of one demonstration.
/// Cost: count (N + q) N a layer, after the kernel of the N in the pool; memory 8 (N + q) N bytes a layer. Throws
/// unless 1 <= count <= N, and what ridge_scores() throws.
Selection select_demonstrations(const IclTask& pool, std::int64_t count, const RidgeOptions& options);

}  // namespace whence
