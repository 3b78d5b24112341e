#include "whence/icl/ridge_view.h"

namespace whence {
namespace {

class RidgeMethod : public IclMethod {
 public:
  explicit RidgeMethod(RidgeOptions options) : options_(std::move(options)) {}
  IclScores score(const IclTask& task) const override { return ridge_scores(task, options_); }

 private:
  RidgeOptions options_;
};

}  // namespace

WHENCE_METHOD(IclMethod, ridge, RidgeMethod, RidgeOptions)

}  // namespace whence
