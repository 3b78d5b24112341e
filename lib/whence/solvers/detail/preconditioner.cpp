#include "whence/solvers/detail/preconditioner.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/curvature/curvature.h"
#include "whence/solvers/detail/low_rank.h"

namespace whence::detail {

BlockMap spectral_preconditioner(std::shared_ptr<const SpectralOperator> a, const Filter& filter) {
  const bool squares = filter.inversion != Inversion::kDamped;
  const auto denominator = [squares, damping = filter.damping](const at::Tensor& h) {
    return squares ? h.square() + damping * damping : h.clamp_min(0) + damping;
  };
  double largest = 0;  // one pass with zeros shows every eigenvalue
  a->apply_function(at::zeros({1, a->size()}, a->options()), [&](const at::Tensor& h) {
    largest = h.numel() > 0 ? std::max(largest, denominator(h).max().item<double>()) : largest;
    return h;
  });
  const double floor = largest > 0 ? 1e-8 * largest : 1;
  return [a = std::move(a), denominator, floor](const at::Tensor& x) {
    return a->apply_function(x, [&](const at::Tensor& h) { return denominator(h).clamp_min(floor).reciprocal(); });
  };
}

BlockMap nystroem_preconditioner(const LinearOperator& base, double shift, std::int64_t rank) {
  const auto part = nystroem_approximation(base, rank, Random(0).stream("nystroem preconditioner"));
  if (part.values.size() == 0) {
    return {};
  }
  const double outside = part.values.minCoeff() + shift;
  auto gains = at::empty({part.values.size(), 1}, at::kDouble);
  for (Eigen::Index j = 0; j < part.values.size(); ++j) {
    gains[j] = 1 / (part.values[j] + shift) - 1 / outside;
  }
  return [vectors = part.vectors, gains = gains.to(part.vectors.options()), outside](const at::Tensor& x) {
    return x / outside + vectors.t().mm(vectors.mm(x.t()).mul(gains)).t();
  };
}

BlockMap make_preconditioner(const System& system, const std::string& name, std::int64_t rank) {
  if (name == "none") {
    return {};
  }
  if (system.filter.inversion == Inversion::kPseudo) {
    throw InvalidArgument(fmt::format(
        "preconditioner {} would move the pseudo-inverse out of the curvature's range: use preconditioner none", name));
  }
  const auto linear = linear_system(system);
  if (name == "nystroem") {
    return nystroem_preconditioner(*linear.base, linear.shift, rank);
  }
  if (!system.point) {
    throw InvalidArgument(
        fmt::format("preconditioner {} is fitted to a stage, and this system names none: use nystroem", name));
  }
  const auto curvature = create<Curvature>(name)->operator_at(*system.point);
  const auto spectral = std::dynamic_pointer_cast<const SpectralOperator>(curvature);
  if (!spectral) {
    throw InvalidArgument(fmt::format("curvature {} has no eigendecomposition, so it is no preconditioner", name));
  }
  return spectral_preconditioner(spectral, system.filter);
}

}  // namespace whence::detail
