#include "whence/core/side_by_side.h"

#include <ATen/ATen.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>

namespace whence {

SideBySide::SideBySide(std::int64_t count)
    : count_(count),
      level_(at::functorch::initAndPushDynamicLayer(at::functorch::TransformType::Vmap, c10::SymInt(count),
                                                    at::functorch::RandomnessType::Error)) {}

SideBySide::~SideBySide() { at::functorch::popDynamicLayerAndDeleteMetadata(); }

at::Tensor SideBySide::one(const at::Tensor& stack) const { return at::functorch::addBatchDim(stack, 0, level_); }

at::Tensor SideBySide::all(const at::Tensor& each) const {
  const auto* stacked = at::functorch::maybeGetBatchedImpl(each);
  if (stacked == nullptr || stacked->level() != level_) {
    return each.unsqueeze(0).repeat_interleave(count_, 0);
  }
  return stacked->value().movedim(stacked->bdim(), 0);
}

}  // namespace whence
