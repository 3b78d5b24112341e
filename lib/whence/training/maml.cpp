// Priming by meta-learning: M. Gheini, X. Ma and J. May, "Know Where You're Going: Meta-Learning for
// Parameter-Efficient Fine-Tuning", Findings of ACL 2023, after C. Finn, P. Abbeel and S. Levine, "Model-Agnostic
// Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017. The inner loop trains the light parameters and the
// head on a task's support, the outer loop the model on its query. With one step the outer gradient is
//
//   grad L_q - rate (d^2 L_s / d theta d light) grad_light L_q,
//
// of which order = first leaves out the second term.
#include <ATen/ATen.h>

#include <algorithm>

#include "whence/core/described.h"
#include "whence/training/priming.h"

namespace whence {
namespace {

struct MamlOptions {
  std::string inner = "adapter";
  std::int64_t inner_steps = 1;
  double inner_rate = 0.1;
  std::string order = "exact";
  double support = 0.5;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("inner", self.inner, AnyText{},
          "the tuning that each task is adapted by, its options separated by ;: lora:rank=4;alpha=8");
    field("inner-steps", self.inner_steps, kAtLeastOne, "of gradient descent on all of a task's support");
    field("inner-rate", self.inner_rate, kPositive, "the length of such a step");
    field("order", self.order, OneOf{"exact|first"},
          "exact: outer gradients go through the inner steps; first: they take its result as given, and no influence "
          "goes through the stage");
    field("support", self.support, kInside, "share of each task's examples that it is adapted to");
  }

 private:
  static constexpr Bound kInside{1e-6, 1 - 1e-6, "above 0 and below 1"};
};

class Maml : public Priming, public Described {
 public:
  explicit Maml(MamlOptions options) : options_(std::move(options)), inner_(options_.inner) {
    std::replace(inner_.begin(), inner_.end(), ';', ',');
  }
  std::string description() const override { return options_text(options_); }
  const std::string& inner() const override { return inner_; }
  double support() const override { return options_.support; }
  std::int64_t inner_steps() const override { return options_.inner_steps; }
  bool is_exact() const override { return options_.order == "exact"; }

  TensorList adapt(const TensorList& start, const std::function<at::Tensor(const TensorList&)>& loss,
                   bool graph) const override {
    auto light = leaves(start);
    for (std::int64_t step = 0; step < options_.inner_steps; ++step) {
      const auto g = gradient(loss(light), light, graph);
      TensorList next;
      for (std::size_t i = 0; i < light.size(); ++i) {
        next.push_back(light[i] - options_.inner_rate * g[i]);
      }
      light = graph ? std::move(next) : leaves(detach(next));
    }
    return graph ? light : detach(light);
  }

 private:
  MamlOptions options_;
  std::string inner_;
};

}  // namespace

WHENCE_METHOD(Priming, maml, Maml, MamlOptions)

}  // namespace whence
