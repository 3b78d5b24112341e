#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/described.h"
#include "whence/models/model.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

struct ConvnetOptions {
  std::vector<std::int64_t> channels = {16, 32};
  std::int64_t kernel = 3;
  std::string activation = "relu";
  std::string pool = "max";
  std::int64_t dense = 0;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("channels", self.channels, kAtLeastOne, "filters of each block: convolution, activation, 2 x 2 pool");
    field("kernel", self.kernel, kAtLeastOne, "width of a filter, odd; images are padded to keep their size");
    field("activation", self.activation, OneOf{kActivations}, "after every body layer; tanh and gelu are smooth");
    field("pool", self.pool, OneOf{kPools}, "how 2 x 2 pixels become one; avg is smooth");
    field("dense", self.dense, kAtLeastZero, "units of a dense body layer after the blocks; 0 is none");
  }
};

std::string body_layer(std::size_t index) { return fmt::format("body.{}", index); }

/// [C, H, W] of an example's shape [H, W] or [C, H, W].
std::vector<std::int64_t> image_shape(at::IntArrayRef shape) {
  if (shape.size() != 2 && shape.size() != 3) {
    throw InvalidArgument(
        fmt::format("convnet: inputs of shape [{}], expected images [height, width] or [channels, height, width]",
                    fmt::join(shape, ", ")));
  }
  auto image = shape.vec();
  if (shape.size() == 2) {
    image.insert(image.begin(), 1);
  }
  return image;
}

class Convnet : public Model, public Described {
 public:
  explicit Convnet(ConvnetOptions options) : options_(std::move(options)) {
    if (options_.kernel % 2 == 0) {
      throw InvalidArgument(fmt::format("convnet: option kernel = {}, expected an odd number", options_.kernel));
    }
  }

  std::string description() const override { return options_text(options_); }
  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override {
    const auto image = image_shape(input_shape);
    auto channels = image[0], height = image[1], width = image[2];
    ParameterSet theta;
    std::size_t layer = 0;
    for (; layer < options_.channels.size(); ++layer) {
      const auto filters = options_.channels[layer];
      add_layer(theta, body_layer(layer), {filters, channels, options_.kernel, options_.kernel}, options_.activation,
                random);
      channels = filters;
      height /= 2;
      width /= 2;
    }
    if (height == 0 || width == 0) {
      throw InvalidArgument(
          fmt::format("convnet: images of {} x {} pixels, expected at least {} for {} blocks that halve them", image[1],
                      image[2], std::int64_t{1} << layer, layer));
    }
    auto features = channels * height * width;
    if (options_.dense > 0) {
      add_layer(theta, body_layer(layer), {options_.dense, features}, options_.activation, random);
      features = options_.dense;
    }
    add_layer(theta, head().name(), {outputs, features}, "", random);
    return theta;
  }

  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    auto x = inputs_like(theta, batch.inputs);
    const auto image = image_shape(x.sizes().slice(1));
    x = x.reshape({x.size(0), image[0], image[1], image[2]});
    std::size_t layer = 0;
    for (; layer < options_.channels.size(); ++layer) {
      x = convolution(theta, body_layer(layer), x, /*stride=*/1, options_.kernel / 2, tape);
      x = pool(options_.pool, activation(options_.activation, x));
    }
    x = x.flatten(1);
    if (options_.dense > 0) {
      x = activation(options_.activation, linear(theta, body_layer(layer), x, tape));
    }
    return linear(theta, head().name(), x, tape);
  }

 private:
  ConvnetOptions options_;
};

}  // namespace

WHENCE_METHOD(Model, convnet, Convnet, ConvnetOptions)

}  // namespace whence
