#include "whence/data/target_values.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"

namespace whence {
namespace {

/// How far from 1 shares may sum that were written with three digits, or rounded to bfloat16.
double sum_slack(const at::Tensor& values) { return values.scalar_type() == at::kBFloat16 ? 0.03 : 2e-3; }

std::int64_t first_of(const at::Tensor& rows) { return rows.to(at::kInt).argmax().item<std::int64_t>(); }

}  // namespace

std::optional<TargetFault> target_fault(const at::Tensor& values, TargetKind wanted) {
  const bool shares = wanted == TargetKind::kClasses;
  if (!shares && wanted != TargetKind::kProbabilities) {
    return std::nullopt;
  }
  if (values.size(0) == 0) {
    return std::nullopt;
  }
  if (shares && values.size(1) < 2) {
    return TargetFault{0, "one value, expected a class, or a share for each of two classes or more"};
  }
  const auto outside = values.lt(0).logical_or(values.gt(1)).logical_or(values.isnan());
  if (const auto rows = outside.any(1); rows.any().item<bool>()) {
    const auto row = first_of(rows);
    const auto column = first_of(outside[row]);
    return TargetFault{
        row, fmt::format("value {} of {}, expected one from 0 to 1", column, values[row][column].item<double>())};
  }
  if (shares) {
    const auto sums = values.to(at::kDouble).sum(1);
    if (const auto rows = (sums - 1).abs().gt(sum_slack(values)); rows.any().item<bool>()) {
      const auto row = first_of(rows);
      const bool marks = values.eq(0).logical_or(values.eq(1)).all().item<bool>();
      return TargetFault{
          row,
          fmt::format("shares that sum to {:.6g}, expected 1{}", sums[row].item<double>(),
                      marks ? ": of classes that an example may be several of, loss = \"binary-cross-entropy\"" : "")};
    }
  }
  return std::nullopt;
}

void check_targets(const Dataset& data, TargetKind wanted) {
  if (data.target_kind() != TargetKind::kValues) {
    return;
  }
  if (const auto fault = target_fault(data.targets(), wanted)) {
    throw DataError(fmt::format("the targets of {}: {}", data.origin(fault->row), fault->why));
  }
}

}  // namespace whence
