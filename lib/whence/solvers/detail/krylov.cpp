#include "whence/solvers/detail/krylov.h"

#include <ATen/ATen.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

#include "whence/core/rounding.h"
#include "whence/core/tensors.h"

namespace whence::detail {
namespace {

/// `rows` with room for at least one more than `used`.
void reserve(at::Tensor& rows, std::int64_t used) {
  if (used >= rows.size(0)) {
    rows = at::cat({rows, at::empty({std::max<std::int64_t>(8, rows.size(0)), rows.size(1)}, rows.options())});
  }
}

}  // namespace

KrylovSpace::KrylovSpace(const at::Tensor& start, BlockMap precondition) : precondition_(std::move(precondition)) {
  const auto w = start.reshape({1, -1});
  const auto z = precondition_ ? precondition_(w) : w;
  start_norm_ = std::sqrt(std::max(0.0, row_dots(w, z).item<double>()));
  dual_ = at::empty({0, w.size(1)}, w.options());
  primal_ = dual_;
  exhausted_ = !(start_norm_ > 0);
  if (!exhausted_) {
    append(w, z, start_norm_);
  }
}

void KrylovSpace::append(const at::Tensor& w, const at::Tensor& z, double length) {
  reserve(dual_, steps());
  dual_[steps()] = w[0] / length;
  if (precondition_) {
    reserve(primal_, steps());
    primal_[steps()] = z[0] / length;
  }
}

void KrylovSpace::extend(const at::Tensor& product) {
  const auto count = steps() + 1;
  const auto left = primal().narrow(0, 0, count), right = dual_.narrow(0, 0, count);
  auto w = product.reshape({1, -1});
  double along = 0;
  for (int round = 0; round < 2; ++round) {  // twice is enough
    const SmallMatrix inside = block_dots(left, w);
    along += inside(count - 1, 0);
    w = w - detail::combine(inside, right);
  }
  diagonal_.push_back(along);
  const auto z = precondition_ ? precondition_(w) : w;
  const double length = std::sqrt(std::max(0.0, row_dots(w, z).item<double>()));
  double size = 0;
  for (std::size_t i = 0; i < diagonal_.size(); ++i) {
    size = std::max(size, std::abs(diagonal_[i]) + (i > 0 ? off_diagonal_[i - 1] : 0));
  }
  exhausted_ = !(length > breakdown(w.scalar_type()) * size) || count == w.size(1);
  off_diagonal_.push_back(exhausted_ ? 0 : length);
  if (!exhausted_) {
    append(w, z, length);
  }
}

RitzPairs KrylovSpace::ritz() const {
  const auto n = steps();
  if (n == 0) {
    return {};
  }
  Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver;
  solver.computeFromTridiagonal(Eigen::Map<const Eigen::VectorXd>(diagonal_.data(), n),
                                Eigen::Map<const Eigen::VectorXd>(off_diagonal_.data(), n - 1));
  return {solver.eigenvalues(), solver.eigenvectors(), off_diagonal_.back()};
}

at::Tensor KrylovSpace::combine(const Eigen::VectorXd& factors) const {
  if (factors.size() == 0) {
    return at::zeros({dual_.size(1)}, dual_.options());
  }
  return detail::combine(factors, primal().narrow(0, 0, factors.size()))[0];
}

void advance(const LinearOperator& a, const std::vector<KrylovSpace*>& spaces) {
  std::vector<at::Tensor> rows;
  for (const auto* space : spaces) {
    if (!space->exhausted()) {
      rows.push_back(space->next());
    }
  }
  if (rows.empty()) {
    return;
  }
  const auto products = a.apply(at::stack(rows));
  check_finite(products, "a product with the curvature");
  std::int64_t row = 0;
  for (auto* space : spaces) {
    if (!space->exhausted()) {
      space->extend(products[row++]);
    }
  }
}

}  // namespace whence::detail
