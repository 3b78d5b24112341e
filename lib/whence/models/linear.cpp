#include <ATen/ATen.h>

#include "whence/core/described.h"
#include "whence/models/dense_layers.h"
#include "whence/models/model.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

struct LinearOptions {
  bool bias = true;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("bias", self.bias, kAny, "add a constant to every output");
  }
};

/// Starts at zero: its objectives are convex, so no start is better.
class Linear : public Model, public DenseLayers, public Described {
 public:
  explicit Linear(const LinearOptions& options) : options_(options) {}

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random&) const override {
    ParameterSet theta;
    theta.add(head().qualified("weight"), at::zeros({outputs, c10::multiply_integers(input_shape)}, at::kDouble));
    if (options_.bias) {
      theta.add(head().qualified("bias"), at::zeros({outputs}, at::kDouble));
    }
    return theta;
  }

  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override {
    return linear(theta, head().name(), inputs_like(theta, batch.inputs).flatten(1), tape);
  }

  std::vector<std::string> layers() const override { return {head().name()}; }
  std::string activation_name() const override { return ""; }
  std::string description() const override { return options_text(options_); }

 private:
  LinearOptions options_;
};

}  // namespace

WHENCE_METHOD(Model, linear, Linear, LinearOptions)

}  // namespace whence
