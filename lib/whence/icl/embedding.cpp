// Cosine between the query's text and the demonstration's, as an embedding model that the caller chose sees them. J.
// Liu et al., "What Makes Good In-Context Examples for GPT-3?", DeeLIO 2022.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "whence/icl/detail/checks.h"
#include "whence/icl/icl_method.h"
#include "whence/icl/state_kernel.h"

namespace whence {
namespace {

class Embedding : public IclMethod {
 public:
  explicit Embedding(const NoOptions&) {}
  IclNeeds needs() const override { return {.embeddings = true}; }

  IclScores score(const IclTask& task) const override {
    const at::NoGradGuard no_gradient;
    check_labels(task);
    detail::check_values(task.embeddings, "embeddings", {task.demonstrations(), -1}, "[n, e]");
    detail::check_values(task.query_embeddings, "query embeddings", {task.queries(), task.embeddings.size(1)},
                         "[q, e]");
    const auto own = task.embeddings.detach().to(at::kCPU, at::kDouble);
    const auto cosine = create<StateKernel>("cosine")->fit(own);
    return {.test = cosine(cosine.map(task.query_embeddings.detach().to(at::kCPU, at::kDouble)), cosine.map(own))};
  }
};

}  // namespace

WHENCE_METHOD(IclMethod, embedding, Embedding, NoOptions)

}  // namespace whence
