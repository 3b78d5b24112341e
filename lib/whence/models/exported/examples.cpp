#include "whence/models/exported/detail/examples.h"

#include <ATen/ATen.h>
#include <ATen/functorch/BatchedFallback.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>
#include <ATen/functorch/LegacyVmapTransforms.h>

namespace whence::detail {
namespace functorch = at::functorch;

OneByOne::OneByOne(std::int64_t examples)
    : examples_(examples),
      level_(functorch::initAndPushDynamicLayer(functorch::TransformType::Vmap, c10::SymInt(examples),
                                                functorch::RandomnessType::Error)) {
  functorch::setVmapFallbackWarningEnabled(false);  // an operator that runs example by example is only slower
}

OneByOne::~OneByOne() { functorch::popDynamicLayerAndDeleteMetadata(); }

at::Tensor OneByOne::seen(const at::Tensor& x) const { return functorch::makeBatched(x, 0, level_); }

bool OneByOne::differs(const at::Tensor& x) const {
  const auto* batched = functorch::maybeGetBatchedImpl(x);
  return batched != nullptr && batched->level() == level_;
}

at::Tensor OneByOne::of_all(const at::Tensor& x) const {
  if (differs(x)) {
    const auto* batched = functorch::maybeGetBatchedImpl(x);
    return batched->value().movedim(batched->bdim(), 0);
  }
  auto sizes = x.sizes().vec();
  sizes.insert(sizes.begin(), examples_);
  return x.unsqueeze(0).expand(sizes);
}

}  // namespace whence::detail
