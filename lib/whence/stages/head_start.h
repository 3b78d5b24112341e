#pragma once
#include <optional>
#include <string_view>

#include "whence/core/progress.h"
#include "whence/stages/stage.h"

namespace whence {

/// How a stage's head begins: at random numbers, or at the regression of the stage's targets on what its body gives
/// before training, with this weight decay. Of "random" (or nothing) and "regression[:weight-decay=0.01]". Throws
/// InvalidArgument for other words.
std::optional<double> parse_head_start(std::string_view spec);

/// Moves the head of a stage that begins to the minimum of its loss, the body staying as it begins, plus weight_decay/2
/// |head|^2: a logistic regression of classes, ridge regression of values, on features of the pretrained model. A
/// random head makes a fine-tune leave the regime of its kernel: S. Malladi et al., "A Kernel-Based View of Language
/// Model Fine-Tuning", ICML 2023. Throws InvalidArgument, naming the stage, where it trains no head, or is primed.
/// Of a head of several layers (a pooler, then a classifier) the last moves, on what those before it make of the body
/// as they begin. Cost: one pass over the data where that is a linear layer with a bias, whose inputs are kept; else
/// all layers move, by some hundred passes of L-BFGS.
void regress_head(Stage& stage, double weight_decay, const Progress& progress = {});

}  // namespace whence
