#pragma once
#include <string_view>
#include <vector>

#include "support/near.h"
#include "whence/solvers/solver.h"

namespace whence::test {

/// A symmetric matrix as an operator; sampled, it is the mean of its `parts`.
class MatrixOperator : public LinearOperator {
 public:
  explicit MatrixOperator(at::Tensor matrix, at::Tensor parts = {})
      : matrix_(std::move(matrix)), parts_(std::move(parts)) {}
  std::int64_t size() const override { return matrix_.size(0); }
  at::TensorOptions options() const override { return matrix_.options(); }

 protected:
  at::Tensor do_apply(const at::Tensor& x) const override { return x.mm(matrix_); }
  at::Tensor do_apply_sampled(const at::Tensor& x, std::int64_t batch_size, Random& random) const override {
    if (!parts_.defined()) {
      return LinearOperator::do_apply_sampled(x, batch_size, random);
    }
    const auto rows = random.uniform({batch_size}, 0, static_cast<double>(parts_.size(0))).floor().to(at::kLong);
    return x.mm(parts_.index_select(0, rows).mean(0));
  }

 private:
  at::Tensor matrix_, parts_;
};

/// Q diag(values) Q' with a random basis.
inline at::Tensor with_eigenvalues(const std::vector<double>& values, std::uint64_t seed = 1) {
  const auto n = static_cast<std::int64_t>(values.size());
  const auto basis = std::get<0>(at::linalg_qr(Random(seed).normal({n, n})));
  return basis.mm(at::diag(at::tensor(values, at::kDouble))).mm(basis.t());
}

/// `count` values from `last` up to `first`, evenly spread in their logarithms.
inline std::vector<double> geometric(double first, double last, int count) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) {
    values.push_back(first * std::pow(last / first, i / (count - 1.0)));
  }
  return values;
}

/// What an inverse makes of the rows of b, with a summary of each.
inline std::vector<SolverSummary> applied(const Inverse& inverse, const at::Tensor& b, at::Tensor& x) {
  auto summaries = inverse.apply(b, x, {});
  REQUIRE(b.size(0) > 0);
  REQUIRE(std::ssize(summaries) == b.size(0));
  REQUIRE(x.sizes() == b.sizes());
  return summaries;
}

inline std::vector<SolverSummary> solve(std::string_view spec, const at::Tensor& matrix, const Filter& filter,
                                        const at::Tensor& b, at::Tensor& x) {
  const auto solver = create<Solver>(spec);
  return applied(*solver->prepare({std::make_shared<MatrixOperator>(matrix), filter}), b, x);
}

/// A^-1 b for the rows of b.
inline at::Tensor inverse_of(const at::Tensor& matrix, const at::Tensor& b) {
  return at::linalg_solve(matrix, b.t()).t();
}

/// What a filter means, for the rows of b, by matrix equations and the descent they stand for: no eigenvalue is taken.
inline at::Tensor filtered(const at::Tensor& matrix, const Filter& filter, const at::Tensor& b) {
  const auto n = matrix.size(0);
  const auto eye = at::eye(n, at::kDouble);
  const auto g = matrix + filter.damping * eye;
  const double step = filter.steps > 0 ? filter.time / static_cast<double>(filter.steps) : 0;
  switch (filter.inversion) {
    case Inversion::kDamped:
      return inverse_of(g, b);
    case Inversion::kFiltered:
      return inverse_of(matrix.mm(matrix) + filter.damping * filter.damping * eye, b.mm(matrix));
    case Inversion::kPseudo:
      return b.mm(at::linalg_pinv(matrix, 1e-10));
    case Inversion::kSegment: {
      if (filter.steps == 0) {  // the integral over time of exp(-time g) b: a corner of one exponential
        auto system = at::zeros({n + b.size(0), n + b.size(0)}, at::kDouble);
        system.narrow(0, 0, n).narrow(1, 0, n).copy_(-filter.time * g);
        system.narrow(0, 0, n).narrow(1, n, b.size(0)).copy_(filter.time * b.t());
        return at::linalg_matrix_exp(system).narrow(0, 0, n).narrow(1, n, b.size(0)).t();
      }
      auto x = at::zeros_like(b);
      for (std::int64_t k = 0; k < filter.steps; ++k) {
        x = x + step * (b - x.mm(g));
      }
      return x;
    }
    case Inversion::kMemory: {
      if (filter.steps == 0) {
        return b.mm(at::linalg_matrix_exp(-filter.time * g));
      }
      auto left = b;
      for (std::int64_t k = 0; k < filter.steps; ++k) {
        left = left - step * left.mm(g);
      }
      return left;
    }
  }
  return {};
}

}  // namespace whence::test
