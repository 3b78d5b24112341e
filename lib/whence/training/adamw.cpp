// Adam whose weight decay is apart from the gradient. It is no part of the objective that scores differentiate: a stage
// whose scores should see a decay gives it as `weight-decay`.
#include "whence/training/detail/adam.h"

namespace whence {
namespace {

struct AdamwOptions {
  detail::AdamOptions adam;
  double decay = 0.01;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    detail::AdamOptions::fields(self.adam, field);
    field("decay", self.decay, kAtLeastZero,
          "a step takes learning-rate x decay off the matrices, not off biases and norms; not in the objective");
  }
};

class Adamw : public detail::AdamSteps {
 public:
  explicit Adamw(AdamwOptions options) : AdamSteps("adamw", std::move(options.adam), options.decay) {}
};

}  // namespace

WHENCE_METHOD(Optimizer, adamw, Adamw, AdamwOptions)

}  // namespace whence
