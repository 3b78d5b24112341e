#include "whence/solvers/detail/blocks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "whence/core/parallel.h"
#include "whence/core/rounding.h"
#include "whence/core/symmetric_eigen.h"
#include "whence/core/tensors.h"

namespace whence::detail {
namespace {

template <class T>
SmallMatrix chunked_dots(const at::Tensor& a, const at::Tensor& b) {
  using Map = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  constexpr std::int64_t kChunk = 1 << 13;  // entries of a row summed in one go
  const auto size = a.size(1);
  const Map x(a.const_data_ptr<T>(), a.size(0), size), y(b.const_data_ptr<T>(), b.size(0), size);
  std::vector<SmallMatrix> partial(static_cast<std::size_t>((size + kChunk - 1) / kChunk));
  parallel_for(static_cast<std::int64_t>(partial.size()), [&](std::int64_t c) {
    const auto begin = c * kChunk, count = std::min(kChunk, size - begin);
    const SmallMatrix left = x.middleCols(begin, count).template cast<double>();
    const SmallMatrix right = y.middleCols(begin, count).template cast<double>();
    partial[static_cast<std::size_t>(c)] = left * right.transpose();
  });
  SmallMatrix total = SmallMatrix::Zero(a.size(0), b.size(0));
  for (const auto& part : partial) {
    total += part;
  }
  return total;
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

Eigenpairs eigenpairs(const SmallMatrix& symmetric) {
  const auto [values, vectors] = symmetric_eigen(to_tensor(symmetric, at::kDouble), "the curvature's small matrix");
  return {Eigen::Map<const Eigen::VectorXd>(values.const_data_ptr<double>(), values.numel()), to_matrix(vectors)};
}

at::Tensor combine(const SmallMatrix& factors, const at::Tensor& x) {
  return to_tensor(factors.transpose(), x.options()).mm(x);
}

at::Tensor normal_rows(Random& random, std::int64_t count, std::int64_t size, const at::TensorOptions& options) {
  auto out = at::empty({count, size}, options);
  for (std::int64_t k = 0; k < count; ++k) {
    out[k].copy_(random.normal({size}));
  }
  return out;
}

RowFactors factor_rows(const at::Tensor& x, double tolerance, double floor) {
  const auto wide = widened(x);
  const auto [q, r] = at::linalg_qr(wide.t());
  const auto small = r.to(at::kCPU, at::kDouble);
  if (small.numel() == 0 || !small.isfinite().all().item<bool>()) {
    return {x.narrow(0, 0, 0), SmallMatrix::Zero(0, x.size(0))};
  }
  const auto [u, values, vt] = at::linalg_svd(small, /*full_matrices=*/false);
  const auto kept = values.gt(std::max(floor, tolerance * values[0].item<double>())).sum().item<std::int64_t>();
  const auto basis = u.narrow(1, 0, kept).t().to(q.options()).mm(q.t());
  return {basis.to(x.scalar_type()), to_matrix(values.narrow(0, 0, kept).unsqueeze(1) * vt.narrow(0, 0, kept))};
}

}  // namespace whence::detail
