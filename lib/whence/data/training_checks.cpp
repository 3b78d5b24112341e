#include "whence/data/training_checks.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "whence/core/error.h"
#include "whence/core/quoted.h"

namespace whence {
namespace {

constexpr std::int64_t kMostExamples = 1024;
// Photographs, digits and scans have |mean| below 3 and deviations of 0.2 to 3 after their trainers' mean and std; what
// was meant for bytes leaves pixels in 0 to 1 a deviation of about 1/255, and bytes one of hundreds.
constexpr double kMostMean = 5, kLeastDeviation = 0.02, kMostDeviation = 10;

std::string list_of(const at::Tensor& values) {
  const auto flat = values.flatten().contiguous();
  const std::vector<double> list(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
  return fmt::format("[{:.4g}]", fmt::join(list, ", "));
}

}  // namespace

void check_classes_differ(const Dataset& data, bool fresh) {
  if (data.target_kind() != TargetKind::kClasses || data.size() == 0) {
    return;
  }
  const auto first = data.targets()[0].item<std::int64_t>();
  if (data.classes().size() > 1 && !(fresh && data.targets().eq(first).all().item<bool>())) {
    return;
  }
  throw DataError(fmt::format(
      "every label of {}{} is \"{}\": one class leaves nothing to tell apart, expected two or more{}",
      data.origins().front().file.string(),
      data.classes().size() > 1 ? " that classes, drop-labels, rows, skip and limit leave" : "",
      data.classes().at(static_cast<std::size_t>(first)),
      data.table() ? fmt::format(": label = takes another column than {}, loss = \"squared-error\" compares numbers",
                                 toml_text(data.table()->label))
                   : ""));
}

std::string input_scale_text(const Dataset& data) {
  if (data.size() == 0 || (!data.mean().defined() && !data.deviation().defined())) {
    return {};
  }
  const auto step = (data.size() + kMostExamples - 1) / kMostExamples;
  const auto looked_at = data.take(at::arange(0, data.size(), step, at::kLong)).to(at::kDouble, at::kCPU);
  const auto inputs = looked_at.batch(0, looked_at.size()).inputs;
  const double mean = inputs.mean().item<double>(), deviation = inputs.std(/*unbiased=*/false).item<double>();
  if (std::abs(mean) <= kMostMean && deviation >= kLeastDeviation && deviation <= kMostDeviation) {
    return {};
  }
  return fmt::format(
      "{}{}{} leave inputs of mean {:.3g} and deviation {:.3g}, expected about 0 and 1: they are taken from inputs "
      "that are as read (bytes over 255), where the trainer's may be those of bytes",
      data.mean().defined() ? "mean = " + list_of(data.mean()) : "",
      data.mean().defined() && data.deviation().defined() ? " and " : "",
      data.deviation().defined() ? "std = " + list_of(data.deviation()) : "", mean, deviation);
}

}  // namespace whence
