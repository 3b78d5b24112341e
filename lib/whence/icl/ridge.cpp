#include "whence/icl/advice.h"
#include "whence/icl/ridge_view.h"

namespace whence {
namespace {

class RidgeMethod : public IclMethod {
 public:
  explicit RidgeMethod(RidgeOptions options) : options_(std::move(options)) {}
  IclNeeds needs() const override { return {.states = true}; }
  IclScores score(const IclTask& task) const override { return ridge_scores(task, options_); }
  const RidgeOptions* regression() const override { return &options_; }
  std::string_view self_by() const override { return "ridge"; }
  std::optional<Advice> advise(const IclTask& task, const IclScores& scores, const at::Tensor& helpful) const override {
    if (task.targets.defined()) {  // no classes of which another could be right
      return std::nullopt;
    }
    return advise_by_labels(task, scores, options_, helpful);
  }

 private:
  RidgeOptions options_;
};

}  // namespace

std::unique_ptr<IclMethod> ridge_method(const RidgeOptions& options) {
  validate(options, "ridge");
  return std::make_unique<RidgeMethod>(options);
}

WHENCE_METHOD(IclMethod, ridge, RidgeMethod, RidgeOptions)

}  // namespace whence
