#pragma once
// The truths that scores of a chain are held against: a dense recursion that shares no code with the adjoint, and
// retraining of the whole chain.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <functional>
#include <string_view>
#include <vector>

#include "support/near.h"
#include "support/toy_chain.h"
#include "whence/attribution/attribute.h"

namespace whence::test {

struct Inverter {
  InverseProblem problem;
  Inverter(std::string_view curvature_spec, std::string_view solver_spec, InverseOptions inverse = {})
      : problem{create<Curvature>(curvature_spec), create<Solver>(solver_spec), inverse} {}
  at::Tensor scores(const Chain& chain, std::size_t stage, const Dataset& queries, Measurement measurement,
                    std::string_view method = "influence") const {
    return score_matrix(chain, stage, *create<Attributor>(method)->prepare(chain, problem), queries, measurement);
  }
  /// Of every stage, the loss measured; each stage's inverse is made once.
  std::vector<at::Tensor> scores_of_all(const Chain& chain, const Dataset& queries) const {
    const auto source = create<Attributor>("influence")->prepare(chain, problem);
    std::vector<at::Tensor> out;
    for (std::size_t s = 0; s < chain.size(); ++s) {
      out.push_back(score_matrix(chain, s, *source, queries, Measurement::kLoss));
    }
    return out;
  }
};

/// What stands in for the inverse of a stage's Hessian, [P, P] both.
using DenseInverse = std::function<at::Tensor(const at::Tensor& h)>;
inline DenseInverse damped_inverse(double damping) {
  return [damping](const at::Tensor& h) { return at::linalg_inv(h + damping * at::eye(h.size(0), at::kDouble)); };
}
inline DenseInverse filtered_inverse(double damping) {
  return [damping](const at::Tensor& h) {
    const auto [values, vectors] = at::linalg_eigh(h);
    return at::mm(vectors * (values / (values.square() + damping * damping)), vectors.t());
  };
}
/// Eigenvalues below `zero` of the largest are those of flat directions.
inline DenseInverse pseudo_inverse(double zero) {
  return [zero](const at::Tensor& h) {
    const auto [values, vectors] = at::linalg_eigh(h);
    const auto flat = values.abs() <= zero * values.abs().max();
    const auto gains = at::where(flat, at::zeros_like(values), 1 / values);
    return at::mm(vectors * gains, vectors.t());
  };
}

/// The scores of every stage by formulas.md 9.2 with dense matrices, one entry at a time, what a stage hands on being
/// differentiated by autograd alone. Hessians take `one_by_one` an example at a time, or a graph of them all: for
/// transformers, where it is several times smaller.
inline std::vector<at::Tensor> dense_scores(const Chain& chain, const Dataset& queries, const DenseInverse& inverse,
                                            bool one_by_one = true) {
  std::vector<at::Tensor> out(chain.size()), hessians(chain.size()), inverses(chain.size());
  for (std::size_t s = 0; s < chain.size(); ++s) {
    const auto& stage = chain[s];
    const auto n = count_entries(stage.theta);
    out[s] = at::zeros({queries.size(), stage.objective.data().size()}, at::kDouble);
    hessians[s] = dense_hessian(stage.objective, stage.theta, stage.parent, one_by_one);
    inverses[s] = inverse(hessians[s].narrow(1, 0, n));
  }
  for (std::int64_t query = 0; query < queries.size(); ++query) {
    const auto& last = chain.back();
    const auto point = leaves(last.theta), from = leaves(last.parent);
    const auto loss = last.objective.example_losses(point, from, queries.batch(query, query + 1)).sum();
    auto q = flatten(gradient(loss, point, false, true));
    auto omega = chain.size() > 1 ? flatten(gradient(loss, from)) : at::Tensor();
    for (auto s = chain.size(); s-- > 0;) {
      const auto& stage = chain[s];
      const auto n = count_entries(stage.theta);
      const auto v = at::mv(inverses[s], q);
      for (std::int64_t i = 0; i < stage.objective.data().size(); ++i) {
        const auto at_theta = leaves(stage.theta);
        const auto one =
            stage.objective.example_losses(at_theta, stage.parent, stage.objective.data().batch(i, i + 1)).sum();
        out[s][query][i] = -at::dot(v, flatten(gradient(one, at_theta)));
      }
      if (s == 0) {
        break;
      }
      omega = omega - at::mv(hessians[s].narrow(1, n, omega.numel()).t(), v);
      // on to what stage s - 1 trained, and past it to what it was handed
      const auto& before = chain[s - 1];
      const auto trained = leaves(before.theta), handed = leaves(before.parent);
      const auto body = before.objective.hand_on(trained, handed);
      REQUIRE(body.names() == stage.objective.parent_layout().names());
      auto both = trained;
      both.insert(both.end(), handed.begin(), handed.end());
      const auto pulled = flatten(gradient(body.values(), both, unflatten(omega, detach(body.values()))));
      q = pulled.narrow(0, 0, count_entries(trained));
      omega = pulled.narrow(0, q.numel(), pulled.numel() - q.numel());
    }
  }
  return out;
}

/// What allows a truth that differentiates a stage's examples together: their losses apart are those.
inline void check_apart(const Chain& chain) {
  for (const auto& stage : chain) {
    const auto& data = stage.objective.data();
    const auto together = stage.objective.example_losses(stage.theta, stage.parent, data.batch(0, data.size()));
    TensorList apart;
    for (std::int64_t i = 0; i < data.size(); ++i) {
      apart.push_back(stage.objective.example_losses(stage.theta, stage.parent, data.batch(i, i + 1)));
    }
    CHECK(relative_error(together, at::cat(apart)) < 1e-12);
  }
}

/// d measurement / d w_i * N, by central differences of retraining everything from stage s on.
inline double retrained_derivative(const Chain& chain, std::size_t stage, std::int64_t row, const Dataset& queries,
                                   std::int64_t query, double h = 1e-3) {
  const auto n = chain[stage].objective.data().size();
  double f[2];
  for (int side = 0; side < 2; ++side) {
    auto weights = at::ones({n}, at::kDouble);
    weights[row] = 1 + (side == 0 ? h : -h);
    f[side] = measure_all(Measurement::kLoss, retrained(chain, stage, weights).back(), queries)[query].item<double>();
  }
  return (f[0] - f[1]) / (2 * h) * static_cast<double>(n);
}

inline Dataset toy_queries(const Chain& chain, std::int64_t count = 3) {
  const auto wants = chain.back().objective.loss().wants();
  return toy_data(wants == TargetKind::kClasses         ? "cross-entropy"
                  : wants == TargetKind::kProbabilities ? "binary-cross-entropy"
                                                        : "squared-error",
                  count, 3, Random(99));
}

}  // namespace whence::test
