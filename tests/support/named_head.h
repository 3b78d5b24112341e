#pragma once
#include <ATen/ATen.h>

#include <string>

#include "whence/models/model.h"
#include "whence/models/ops.h"

namespace whence::test {

/// One hidden layer, fc1, and a head that is called as one likes, with the same numbers under every name.
class NamedHead : public Model {
 public:
  explicit NamedHead(std::string name) : head_(std::move(name)) {}
  Head head() const override { return head_; }

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override {
    ParameterSet theta;
    add_layer(theta, "fc1", {4, input_shape[0]}, "tanh", random);
    theta.add(head_.qualified("weight"), random.stream("the head's weight").normal({outputs, 4}));
    theta.add(head_.qualified("bias"), at::zeros({outputs}, at::kDouble));
    return theta;
  }
  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    const auto hidden = at::tanh(linear(theta, "fc1", inputs_like(theta, batch.inputs), tape));
    return linear(theta, head_.name(), hidden, tape);
  }

 private:
  Head head_;
};

}  // namespace whence::test
