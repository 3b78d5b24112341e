// What the query looks at, which need not be what its answer depends on. S. Jain and B. Wallace, "Attention is not
// Explanation", NAACL 2019.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "whence/icl/detail/checks.h"
#include "whence/icl/icl_method.h"

namespace whence {
namespace {

class Attention : public IclMethod {
 public:
  explicit Attention(const NoOptions&) {}
  IclNeeds needs() const override { return {.attention = true}; }

  IclScores score(const IclTask& task) const override {
    const at::NoGradGuard no_gradient;
    check_labels(task);
    const auto& weights = task.attention;
    auto shape = weights.defined() && weights.dim() > 2 ? weights.sizes().vec() : std::vector<std::int64_t>(2);
    shape[shape.size() - 2] = task.queries();
    shape.back() = task.demonstrations();
    detail::check_values(weights, "attention weights", shape, "[..., q, n]");
    return {.test = weights.detach().to(at::kCPU, at::kDouble).unsqueeze(0).flatten(0, -3).mean(0)};
  }
};

}  // namespace

WHENCE_METHOD(IclMethod, attention, Attention, NoOptions)

}  // namespace whence
