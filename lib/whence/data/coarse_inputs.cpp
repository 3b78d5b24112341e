#include "whence/data/coarse_inputs.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/rounding.h"

namespace whence {
namespace {

constexpr double kMostNumbers = 1 << 26;
constexpr double kBatchNumbers = 1 << 18;  // looked at together: to look is not to be what takes the most memory

}  // namespace

bool is_coarse(const CoarseInput& input, at::ScalarType dtype) {
  return input.spread > 0 && input.spread < std::sqrt(2 * epsilon(dtype)) * input.magnitude;
}

std::vector<CoarseInput> coarse_inputs(const Dataset& data, at::ScalarType dtype) {
  double width = 1;
  for (const auto side : data.input_shape()) {
    width *= static_cast<double>(side);
  }
  if (data.is_text() || data.size() == 0 || (dtype != at::kFloat && dtype != at::kDouble) ||
      width * static_cast<double>(data.size()) > kMostNumbers) {
    return {};
  }
  const auto step = std::max<std::int64_t>(1, static_cast<std::int64_t>(kBatchNumbers / width));
  at::Tensor low, high;
  for (std::int64_t begin = 0; begin < data.size(); begin += step) {
    const auto end = std::min(data.size(), begin + step);
    const auto part = data.take(at::arange(begin, end)).to(at::kDouble, at::kCPU);  // all of them would be kept
    const auto x = part.batch(0, part.size()).inputs.flatten(1);
    const auto [smallest, largest] = at::aminmax(x, 0);
    low = low.defined() ? at::minimum(low, smallest) : smallest;
    high = high.defined() ? at::maximum(high, largest) : largest;
  }
  std::vector<CoarseInput> out;
  for (std::int64_t i = 0; i < low.numel(); ++i) {
    const double smallest = low[i].item<double>(), largest = high[i].item<double>();
    const CoarseInput input{i, std::max(std::abs(smallest), std::abs(largest)), largest - smallest};
    if (is_coarse(input, dtype)) {
      out.push_back(input);
    }
  }
  return out;
}

std::string coarse_inputs_text(const std::vector<CoarseInput>& inputs, const std::vector<std::string>& names,
                               at::ScalarType dtype, bool trained) {
  if (inputs.empty()) {
    return {};
  }
  const auto& first = inputs.front();
  const auto place = static_cast<std::size_t>(first.index);
  const auto name =
      place < names.size() ? fmt::format("column {}", names[place]) : fmt::format("input {}", first.index);
  const bool any_double =
      std::none_of(inputs.begin(), inputs.end(), [](const auto& input) { return is_coarse(input, at::kDouble); });
  const auto centre =
      fmt::format("subtract its mean (a table: standardize = true){}", trained ? " and train again" : "");
  return fmt::format(
      "{} goes up to {:.4g} and differs between examples by {:.2g} at most{}, which {} loses in rounding: gradients "
      "and "
      "residuals look small whatever the scores are; {}",
      name, first.magnitude, first.spread,
      inputs.size() > 1 ? fmt::format(" ({} more inputs likewise)", inputs.size() - 1) : "",
      dtype == at::kDouble ? "float64" : "float32",
      dtype == at::kDouble ? centre
      : any_double         ? "use --dtype float64, or " + centre
                           : centre + "; --dtype float64 alone helps little");
}

}  // namespace whence
