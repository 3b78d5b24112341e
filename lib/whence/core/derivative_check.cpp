#include "whence/core/derivative_check.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "whence/core/random.h"

namespace whence {
namespace {

constexpr double kStep = 1e-5;  // rounding 1e-16 / kStep and truncation kStep^2 are both near 1e-10

using Scalar = std::function<at::Tensor(const TensorList&)>;
using Vector = std::function<TensorList(const TensorList&)>;

TensorList in_double(const TensorList& x) {
  TensorList out;
  for (const auto& t : x) {
    out.push_back(t.detach().to(at::kDouble).contiguous());
  }
  return out;
}

TensorList moved(const TensorList& x, double step, const TensorList& direction) {
  auto out = clone(x);
  axpy(step, direction, out);
  return out;
}

/// A random direction of length one.
TensorList random_direction(const TensorList& x, Random random) {
  TensorList out;
  for (const auto& t : x) {
    out.push_back(random.normal(t.sizes()).to(t.device()));
  }
  const double length = std::sqrt(exact_dot(out, out));
  for (auto& t : out) {
    t.div_(length);
  }
  return out;
}

double relative_error(const TensorList& a, const TensorList& b) {
  double difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto gap = a[i] - b[i];
    difference += exact_dot(gap, gap);
  }
  const double size = std::max(exact_dot(a, a), exact_dot(b, b));
  if (!std::isfinite(difference)) {
    return std::numeric_limits<double>::infinity();
  }
  return size == 0 ? 0 : std::sqrt(difference / size);
}

TensorList gradient_at(const Scalar& function, const TensorList& x) {
  const auto tracked = leaves(x);
  return detach(gradient(function(tracked), tracked));
}

/// Entry by entry.
TensorList difference_gradient(const Scalar& function, const TensorList& x) {
  auto point = clone(x);
  auto out = zeros_like(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto entries = point[i].view({-1});
    auto slopes = out[i].view({-1});
    for (std::int64_t j = 0; j < entries.numel(); ++j) {
      const double here = entries[j].item<double>();
      entries[j].fill_(here + kStep);
      const double above = function(point).item<double>();
      entries[j].fill_(here - kStep);
      const double below = function(point).item<double>();
      entries[j].fill_(here);
      slopes[j].fill_((above - below) / (2 * kStep));
    }
  }
  return out;
}

/// Derivative of a vector-valued function along a direction.
TensorList difference_along(const Vector& function, const TensorList& x, const TensorList& direction) {
  auto out = clone(function(moved(x, kStep, direction)));  // a gradient may be one number seen many times: not writable
  axpy(-1, function(moved(x, -kStep, direction)), out);
  for (auto& t : out) {
    t.div_(2 * kStep);
  }
  return out;
}

}  // namespace

DerivativeErrors check_derivatives(const Scalar& function, const TensorList& x, std::uint64_t seed) {
  const c10::AutoGradMode with_grad(true);
  const auto point = in_double(x);
  const auto direction = random_direction(point, Random(seed));
  const auto tracked = leaves(point);
  const auto first = gradient(function(tracked), tracked, /*create_graph=*/true);
  DerivativeErrors errors;
  errors.gradient = relative_error(detach(first), difference_gradient(function, point));
  errors.hessian_product = relative_error(
      gradient(first, tracked, direction),
      difference_along([&](const TensorList& at) { return gradient_at(function, at); }, point, direction));
  return errors;
}

DerivativeErrors check_derivatives(const std::function<at::Tensor(const TensorList&, const TensorList&)>& function,
                                   const TensorList& x, const TensorList& y, std::uint64_t seed) {
  const c10::AutoGradMode with_grad(true);
  const auto x_point = in_double(x), y_point = in_double(y);
  const auto of_x = [&](const TensorList& at) { return function(at, y_point); };
  const auto of_y = [&](const TensorList& at) { return function(x_point, at); };
  auto errors = check_derivatives(of_x, x, seed);
  errors.gradient =
      std::max(errors.gradient, relative_error(gradient_at(of_y, y_point), difference_gradient(of_y, y_point)));

  const auto direction = random_direction(x_point, Random(seed));
  const auto x_tracked = leaves(x_point), y_tracked = leaves(y_point);
  const auto first = gradient(function(x_tracked, y_tracked), x_tracked, /*create_graph=*/true);
  const auto gradient_in_y = [&](const TensorList& at) {
    return gradient_at([&](const TensorList& in) { return function(at, in); }, y_point);
  };
  errors.mixed_product =
      relative_error(gradient(first, y_tracked, direction), difference_along(gradient_in_y, x_point, direction));
  return errors;
}

}  // namespace whence
