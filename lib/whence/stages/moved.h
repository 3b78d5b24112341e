#pragma once
// A stage's merge and hand-on as maps of (theta, parent), and their derivatives.
#include <string>
#include <utility>
#include <vector>

#include "whence/stages/stage.h"

namespace whence {

/// The model's parameters that a stage moves: what of merge() depends on theta.
std::vector<std::string> moved_parameters(const Stage& stage);

/// (d merge / d theta) v at the stage's theta for each row of v [K, P]: the directions of moved_parameters() that
/// directions of the trained ones are.
Directions push_forward(const Stage& stage, const at::Tensor& v);

/// Transposed, of both: K cotangents of the model's parameters, or, of a stage that is not the `last`, of the body that
/// it hands on, as what falls on theta and, where `parents` too, on the parent, [K, P] each.
std::pair<at::Tensor, at::Tensor> pull_back_merge(const Stage& stage, const Directions& cotangents, bool parents,
                                                  bool last);

/// Entries that are trained and the parent's too, where training began.
struct SharedEntries {
  std::int64_t in_theta, in_parent, count;  ///< Where they begin in each, flattened.
};
std::vector<SharedEntries> entries_from_parent(const Stage& stage);

}  // namespace whence
