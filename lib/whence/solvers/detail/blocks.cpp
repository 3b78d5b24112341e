#include "whence/solvers/detail/blocks.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <Eigen/Cholesky>
#include <vector>

namespace whence::detail {
namespace {

template <class T>
SmallMatrix chunked_dots(const at::Tensor& a, const at::Tensor& b) {
  using Map = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  constexpr std::int64_t kChunk = 1 << 13;  // entries of a row summed in one go
  const auto size = a.size(1);
  const Map x(a.const_data_ptr<T>(), a.size(0), size), y(b.const_data_ptr<T>(), b.size(0), size);
  std::vector<SmallMatrix> partial(static_cast<std::size_t>((size + kChunk - 1) / kChunk));
  at::parallel_for(0, static_cast<std::int64_t>(partial.size()), 1, [&](std::int64_t first, std::int64_t last) {
    for (auto c = first; c < last; ++c) {
      const auto begin = c * kChunk, count = std::min(kChunk, size - begin);
      const SmallMatrix left = x.middleCols(begin, count).template cast<double>();
      const SmallMatrix right = y.middleCols(begin, count).template cast<double>();
      partial[static_cast<std::size_t>(c)] = left * right.transpose();
    }
  });
  SmallMatrix total = SmallMatrix::Zero(a.size(0), b.size(0));
  for (const auto& part : partial) {
    total += part;
  }
  return total;
}

/// Rows of a Gram matrix with a unit diagonal that do not depend on those picked before, the farthest first.
std::vector<std::int64_t> independent_rows(const SmallMatrix& gram, double tolerance) {
  SmallMatrix left = gram;  // what the rows picked so far leave of each
  std::vector<std::int64_t> picked;
  while (static_cast<Eigen::Index>(picked.size()) < gram.rows()) {
    Eigen::Index pivot = 0;
    const double square = left.diagonal().maxCoeff(&pivot);
    if (!(square > tolerance * tolerance)) {
      break;
    }
    picked.push_back(pivot);
    const Eigen::VectorXd column = left.col(pivot);
    left -= column * column.transpose() / square;
    left.row(pivot).setZero();
    left.col(pivot).setZero();
  }
  return picked;
}

/// L^-1 x for the Cholesky factor L of the rows' Gram matrix, whose diagonal is about 1.
at::Tensor cholesky_round(const at::Tensor& x) {
  constexpr double kRounding = 1e-15;  // of the Gram matrix; keeps it positive definite
  SmallMatrix gram = block_dots(x, x);
  gram.diagonal().array() += kRounding;
  const SmallMatrix lower = gram.llt().matrixL();
  const SmallMatrix inverse = lower.triangularView<Eigen::Lower>().solve(SmallMatrix::Identity(x.size(0), x.size(0)));
  return combine(inverse.transpose(), x);
}

}  // namespace

SmallMatrix block_dots(const at::Tensor& a, const at::Tensor& b) {
  if (a.is_cpu() && a.scalar_type() == at::kFloat && b.scalar_type() == at::kFloat) {
    return chunked_dots<float>(a.contiguous(), b.contiguous());
  }
  if (a.is_cpu()) {
    return chunked_dots<double>(a.to(at::kDouble).contiguous(), b.to(at::kDouble).contiguous());
  }
  return to_matrix(a.to(at::kDouble).mm(b.to(at::kDouble).t()));
}

at::Tensor to_tensor(const SmallMatrix& matrix, const at::TensorOptions& options) {
  return at::from_blob(const_cast<double*>(matrix.data()), {matrix.rows(), matrix.cols()}, at::kDouble)
      .to(options, false, true);
}

SmallMatrix to_matrix(const at::Tensor& tensor) {
  const auto values = tensor.to(at::kCPU, at::kDouble).contiguous();
  return Eigen::Map<const SmallMatrix>(values.const_data_ptr<double>(), values.size(0), values.size(1));
}

at::Tensor combine(const SmallMatrix& factors, const at::Tensor& x) {
  return to_tensor(factors.transpose(), x.options()).mm(x);
}

at::Tensor orthonormal_rows(const at::Tensor& x, double tolerance) {
  const SmallMatrix gram = block_dots(x, x);
  Eigen::VectorXd scale = gram.diagonal().cwiseSqrt();
  for (double& s : scale) {
    s = s > 0 ? 1 / s : 0;
  }
  const auto picked = independent_rows(scale.asDiagonal() * gram * scale.asDiagonal(), tolerance);
  if (picked.empty()) {
    return x.narrow(0, 0, 0);
  }
  SmallMatrix pick = SmallMatrix::Zero(x.size(0), static_cast<Eigen::Index>(picked.size()));
  for (std::size_t i = 0; i < picked.size(); ++i) {
    pick(picked[i], static_cast<Eigen::Index>(i)) = scale[picked[i]];
  }
  return cholesky_round(cholesky_round(combine(pick, x)));
}

double dependence_tolerance(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? 1e-7 : 1e-5; }

}  // namespace whence::detail
