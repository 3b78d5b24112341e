// How unlikely the model finds a demonstration's output after all that stands before it in the prompt: wrong labels
// surprise. The perplexity filter of data cleaning, read off the same forward pass.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "whence/icl/advice.h"
#include "whence/icl/detail/checks.h"
#include "whence/icl/icl_method.h"

namespace whence {
namespace {

struct SurprisalOptions {
  bool center = true;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("center", self.center, kAny,
          "take the mean of the demonstrations with the same label away, where there are several: some labels are "
          "always unlikely");
  }
};

class Surprisal : public IclMethod {
 public:
  explicit Surprisal(SurprisalOptions options) : options_(options) {}
  IclNeeds needs() const override { return {.surprisal = true}; }
  std::string_view self_by() const override { return "surprisal"; }

  IclScores score(const IclTask& task) const override {
    const at::NoGradGuard no_gradient;
    check_labels(task);
    detail::check_values(task.surprisal, "surprisals", {task.demonstrations()}, "[n]");
    auto self = task.surprisal.detach().to(at::kCPU, at::kDouble);
    if (options_.center) {
      const auto same = task.labels.unsqueeze(1).eq(task.labels).to(at::kDouble);
      const auto count = same.sum(1);
      self = self - at::where(count.gt(1), same.mv(self) / count, self.mean());
    }
    return {.self = self};
  }
  std::optional<Advice> advise(const IclTask& task, const IclScores&, const at::Tensor&) const override {
    return advise_by_surprisal(task.surprisal);
  }

 private:
  SurprisalOptions options_;
};

}  // namespace

WHENCE_METHOD(IclMethod, surprisal, Surprisal, SurprisalOptions)

}  // namespace whence
