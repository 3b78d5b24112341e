#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/described.h"
#include "whence/models/dense_layers.h"
#include "whence/models/model.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

struct MlpOptions {
  std::vector<std::int64_t> widths = {64, 32};
  std::string activation = "tanh";

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("widths", self.widths, kAtLeastOne, "units of each body layer, first to last");
    field("activation", self.activation, OneOf{kActivations}, "after every body layer; tanh and gelu are smooth");
  }
};

std::string hidden_layer(std::size_t index) { return fmt::format("body.{}", index); }

class Mlp : public Model, public DenseLayers, public Described {
 public:
  explicit Mlp(MlpOptions options) : options_(std::move(options)) {}

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override {
    ParameterSet theta;
    auto width = c10::multiply_integers(input_shape);
    for (std::size_t i = 0; i < options_.widths.size(); ++i) {
      add_layer(theta, hidden_layer(i), {options_.widths[i], width}, options_.activation, random);
      width = options_.widths[i];
    }
    add_layer(theta, head().name(), {outputs, width}, "", random);
    return theta;
  }

  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    auto x = inputs_like(theta, batch.inputs).flatten(1);
    for (std::size_t i = 0; i < options_.widths.size(); ++i) {
      x = activation(options_.activation, linear(theta, hidden_layer(i), x, tape));
    }
    return linear(theta, head().name(), x, tape);
  }

  std::vector<std::string> layers() const override {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < options_.widths.size(); ++i) {
      out.push_back(hidden_layer(i));
    }
    out.push_back(head().name());
    return out;
  }
  std::string activation_name() const override { return options_.activation; }
  std::string description() const override { return options_text(options_); }

 private:
  MlpOptions options_;
};

}  // namespace

WHENCE_METHOD(Model, mlp, Mlp, MlpOptions)

}  // namespace whence
