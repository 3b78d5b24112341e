#include "whence/attribution/plausible.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace whence {

at::Tensor room_to_move(Measurement measurement, const Dataset& queries, const at::Tensor& measured,
                        const Dataset& training) {
  constexpr double kSlack = 0.05;  // of the scale: a query whose loss is nearly 0 may well be predicted below it
  double scale = std::max<double>(std::numeric_limits<float>::min(), measured.abs().max().item<double>());
  if (measured.numel() > 1) {
    scale = std::max(scale, (measured.max() - measured.min()).item<double>());
  }
  if (training.target_kind() == TargetKind::kValues) {
    const auto values = training.targets().to(at::kCPU, at::kDouble).reshape({training.size(), -1});
    const double farthest = (values - values.mean(0)).square().sum(1).max().item<double>();
    scale = std::max(scale, measurement == Measurement::kLoss ? farthest / 2 : 2 * std::sqrt(farthest));
  } else {
    scale = std::max(scale, std::log(static_cast<double>(std::max<std::int64_t>(2, queries.outputs()))));
  }
  const auto far = at::full_like(measured, scale);
  const auto near = at::clamp_min(measured.abs(), kSlack * scale);
  switch (measurement) {
    case Measurement::kLoss:
      return at::stack({near, far}, 1);
    case Measurement::kLogProbability:
      return at::stack({far, near}, 1);
    case Measurement::kLogit:
    case Measurement::kMargin:
      return at::stack({far, far}, 1);
  }
  return {};
}

}  // namespace whence
