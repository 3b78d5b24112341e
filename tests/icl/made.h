#pragma once
#include "support/near.h"
#include "whence/core/error.h"
#include "whence/core/random.h"
#include "whence/icl/ridge_view.h"

namespace whence::test {

struct Sizes {
  std::int64_t demonstrations = 8, features = 20, classes = 3, queries = 4, layers = 1;
};

/// The paper's options, with what a test changes: the formulas below are in plain states.
struct Paper {
  double lambda = 1, self_lambda = 0;
  bool regulariser = true;
  std::string kernel = "dot";
  std::int64_t projection = 0, seed = 0;

  operator RidgeOptions() const { return {lambda, self_lambda, regulariser, kernel, projection, seed}; }  // NOLINT
};

/// Standard normal hidden states with labels that they have nothing to do with.
inline IclTask made_task(const Sizes& sizes, std::uint64_t seed = 0) {
  Random random(seed);
  const auto labels = [&](std::int64_t count) {
    return random.uniform({count}, 0, static_cast<double>(sizes.classes)).floor().to(at::kLong);
  };
  IclTask task;
  task.classes = sizes.classes;
  task.labels = labels(sizes.demonstrations);
  task.query_labels = labels(sizes.queries);
  task.states = random.normal({sizes.layers, sizes.demonstrations, sizes.features});
  task.query_states = random.normal({sizes.layers, sizes.queries, sizes.features});
  return task;
}

inline at::Tensor target_rows(const at::Tensor& labels, std::int64_t classes) {
  return at::eye(classes, at::kDouble).index_select(0, labels);
}

/// The ridge regression's coefficients [d, C], on features.
inline at::Tensor coefficients(const at::Tensor& m, const at::Tensor& y, double lambda) {
  return at::linalg_solve(m.t().mm(m) + lambda * at::eye(m.size(1), at::kDouble), m.t().mm(y));
}

/// One layer's scores straight from their definition: one d x d system for each demonstration, and a refit.
inline IclScores by_definition(const IclTask& task, std::int64_t layer, const RidgeOptions& options) {
  const auto m = task.states[layer].to(at::kDouble), queries = task.query_states[layer].to(at::kDouble);
  const auto n = m.size(0), d = m.size(1), q = queries.size(0);
  const auto y = target_rows(task.labels, task.classes), targets = target_rows(task.query_labels, task.classes);
  const auto beta = coefficients(m, y, options.lambda);
  const auto system = [&](double lambda) { return m.t().mm(m) + lambda * at::eye(d, at::kDouble); };
  const auto gradient = [&](const at::Tensor& row, const at::Tensor& target, double lambda) {
    const auto x = row.unsqueeze(0);
    const auto g = x.t().mm(x.mm(beta) - target.unsqueeze(0));
    return options.regulariser ? at::Tensor(g + lambda * beta) : g;
  };
  const auto lambda = options.lambda;
  const auto self_lambda = options.self_lambda > 0 ? options.self_lambda : lambda;
  const auto empty = [](at::IntArrayRef shape) { return at::empty(shape, at::kDouble); };
  IclScores scores{empty({q, n}), empty({n}), empty({q, n}), queries.mm(beta), empty({n, y.size(1)})};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto g = gradient(m[i], y[i], self_lambda);
    scores.self[i] = (g * at::linalg_solve(system(self_lambda), g)).sum();
    const auto solved = at::linalg_solve(system(lambda), gradient(m[i], y[i], lambda));
    const auto others = at::arange(n, at::kLong).ne(i).nonzero().squeeze(1);
    const auto without = coefficients(m.index_select(0, others), y.index_select(0, others), lambda);
    scores.foretold[i] = m[i].unsqueeze(0).mm(without).squeeze(0);
    for (std::int64_t t = 0; t < q; ++t) {
      scores.test[t][i] = (gradient(queries[t], targets[t], lambda) * solved).sum();
      const auto loss = [&](const at::Tensor& b) {
        return (queries[t].unsqueeze(0).mm(b).squeeze(0) - targets[t]).square().sum() / 2;
      };
      scores.leave_one_out[t][i] = loss(without) - loss(beta);
    }
  }
  return scores;
}

/// The largest of the relative errors of the five.
inline double relative_error(const IclScores& a, const IclScores& b) {
  return std::max({relative_error(a.test, b.test), relative_error(a.self, b.self),
                   relative_error(a.leave_one_out, b.leave_one_out), relative_error(a.prediction, b.prediction),
                   relative_error(a.foretold, b.foretold)});
}

}  // namespace whence::test
