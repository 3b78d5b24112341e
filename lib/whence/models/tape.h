#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace whence {

/// What one layer with weights saw in a forward pass. With g the gradient of the summed losses at `output`, the layer's
/// per-example gradients follow from (input, g) without any per-example backward pass.
struct TapeEntry {
  enum class Kind { kLinear, kConvolution };
  Kind kind = Kind::kLinear;
  std::string layer;  ///< The parameters are layer.weight and layer.bias (if has_bias).
  bool has_bias = true;
  at::Tensor input;   ///< Linear [B, in]; convolution [B, in, H, W]; detached.
  at::Tensor output;  ///< Linear [B, out]; convolution [B, out, H', W']; part of the graph.
  std::vector<std::int64_t> kernel, padding, stride;  ///< Convolution only.
};

/// Records the layers of one forward pass, in order. A null tape costs nothing.
struct Tape {
  std::vector<TapeEntry> entries;
};

}  // namespace whence
