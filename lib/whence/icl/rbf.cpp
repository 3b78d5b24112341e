// exp(-|x - y|^2 / (2 bandwidth^2)). The median heuristic for the bandwidth is that of A. Gretton et al., "A Kernel
// Two-Sample Test", JMLR 2012, section 8.
#include <ATen/ATen.h>

#include "whence/icl/state_kernel.h"

namespace whence {
namespace {

struct RbfOptions {
  double bandwidth = 0;
  bool normalize = false;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("bandwidth", self.bandwidth, kAtLeastZero,
          "the distance at which states are alike by exp(-1/2); 0: the median of the distances between demonstrations "
          "that differ");
    field("normalize", self.normalize, kAny, "states of length 1");
  }
};

/// |x_i - y_j|^2: [a, b]. Zero where rounding hides it, so that equal states are at distance zero exactly.
at::Tensor squared_distances(const at::Tensor& x, const at::Tensor& y) {
  constexpr double kRounding = 1e-13;
  const auto sizes = x.square().sum(1, /*keepdim=*/true) + y.square().sum(1);
  auto distances = at::addmm(sizes, x, y.t(), 1, -2);
  return distances.masked_fill_(distances.le(kRounding * sizes), 0);
}

/// The lower median of the distances between rows that differ; 1 where none do.
double median_distance(const at::Tensor& rows) {
  const auto n = rows.size(0);
  const auto distances = squared_distances(rows, rows);
  const auto differ = distances.gt(0).logical_and(at::ones({n, n}, at::kBool).triu(1));
  const auto found = distances.masked_select(differ);
  return found.numel() > 0 ? found.median().sqrt().item<double>() : 1;
}

class RbfKernel : public StateKernel {
 public:
  explicit RbfKernel(RbfOptions options) : options_(options) {}

  FittedKernel fit(const at::Tensor& demonstrations) const override {
    const auto rows = [normalize = options_.normalize](const at::Tensor& states) {
      return normalize ? states / at::linalg_vector_norm(states, 2, {1}, /*keepdim=*/true).clamp_min(1e-300) : states;
    };
    const auto own = rows(demonstrations);
    const auto mean = own.mean(0);  // distances do not see it, but rounding does
    const double bandwidth = options_.bandwidth > 0 ? options_.bandwidth : median_distance(own - mean);
    return {[rows, mean, bandwidth](const at::Tensor& states) { return (rows(states) - mean) / bandwidth; },
            [](const at::Tensor& x, const at::Tensor& y) { return squared_distances(x, y).mul_(-0.5).exp_(); }};
  }

 private:
  RbfOptions options_;
};

}  // namespace

WHENCE_METHOD(StateKernel, rbf, RbfKernel, RbfOptions)

}  // namespace whence
