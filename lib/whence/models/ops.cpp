#include "whence/models/ops.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "whence/core/error.h"

namespace whence {
namespace {

struct Layer {
  at::Tensor weight, bias;  // bias is undefined where the layer has none
};

Layer find_layer(const ParameterSet& theta, std::string_view layer) {
  const auto bias = fmt::format("{}.bias", layer);
  return {theta.at(fmt::format("{}.weight", layer)), theta.contains(bias) ? theta.at(bias) : at::Tensor()};
}

void check_input(std::string_view layer, const at::Tensor& x, const at::Tensor& weight) {
  if (x.dim() != weight.dim() || x.size(1) != weight.size(1)) {
    throw InvalidArgument(fmt::format("layer {}: input of shape [{}] does not fit a weight of shape [{}]", layer,
                                      fmt::join(x.sizes(), ", "), fmt::join(weight.sizes(), ", ")));
  }
}

/// Appends the entry and gives it an output that autograd tracks: a leaf where nothing below is tracked, so that the
/// signal at `output` can be asked for without paying for gradients of the parameters.
at::Tensor record(Tape* tape, TapeEntry entry) {
  if (tape == nullptr) {
    return entry.output;
  }
  entry.input = entry.input.detach();
  if (!entry.output.requires_grad()) {
    entry.output = entry.output.detach().requires_grad_(true);
  }
  tape->entries.push_back(std::move(entry));
  return tape->entries.back().output;
}

}  // namespace

at::Tensor linear(const ParameterSet& theta, std::string_view layer, const at::Tensor& x, Tape* tape) {
  const auto [weight, bias] = find_layer(theta, layer);
  check_input(layer, x, weight);
  return record(tape, {.kind = TapeEntry::Kind::kLinear,
                       .layer = std::string(layer),
                       .has_bias = bias.defined(),
                       .input = x,
                       .output = at::linear(x, weight, bias),
                       .kernel = {},
                       .padding = {},
                       .stride = {}});
}

at::Tensor convolution(const ParameterSet& theta, std::string_view layer, const at::Tensor& x, std::int64_t stride,
                       std::int64_t padding, Tape* tape) {
  const auto [weight, bias] = find_layer(theta, layer);
  check_input(layer, x, weight);
  return record(tape, {.kind = TapeEntry::Kind::kConvolution,
                       .layer = std::string(layer),
                       .has_bias = bias.defined(),
                       .input = x,
                       .output = at::conv2d(x, weight, bias, stride, padding),
                       .kernel = weight.sizes().slice(2).vec(),
                       .padding = {padding, padding},
                       .stride = {stride, stride}});
}

at::Tensor activation(std::string_view name, const at::Tensor& x) {
  if (name == "tanh") {
    return at::tanh(x);
  }
  if (name == "relu") {
    return at::relu(x);
  }
  if (name == "gelu") {
    return at::gelu(x);
  }
  throw InvalidArgument(unknown_name("activation", name, {"tanh", "relu", "gelu"}));
}

at::Tensor pool(std::string_view name, const at::Tensor& x) {
  if (name == "max") {
    return at::max_pool2d(x, 2);
  }
  if (name == "avg") {
    return at::avg_pool2d(x, 2);
  }
  throw InvalidArgument(unknown_name("pool", name, {"max", "avg"}));
}

at::Tensor inputs_like(const ParameterSet& theta, const at::Tensor& inputs) {
  return inputs.to(theta.at("head.weight").scalar_type());
}

void add_layer(ParameterSet& theta, const std::string& layer, at::IntArrayRef shape, std::string_view activation_name,
               const Random& random) {
  double kernel = 1;
  for (const auto extent : shape.slice(2)) {
    kernel *= static_cast<double>(extent);
  }
  const double fan_out = static_cast<double>(shape[0]) * kernel, fan_in = static_cast<double>(shape[1]) * kernel;
  const bool one_sided = activation_name == "relu" || activation_name == "gelu";
  const auto name = layer + ".weight";
  theta.add(name, random.stream(name).normal(shape) * std::sqrt(2 / (one_sided ? fan_in : fan_in + fan_out)));
  theta.add(layer + ".bias", at::zeros({shape[0]}, at::kDouble));
}

}  // namespace whence
