#pragma once
#include <cstdint>
#include <limits>
#include <optional>

#include "whence/stages/stage.h"

namespace whence {

/// A stage's model on some of its own examples, beside the best guess that does not look at them: how frequent their
/// classes are, or the mean of their values.
struct BesideGuess {
  std::int64_t examples = 0;
  double loss = 0, guess = 0;                                       ///< Mean losses.
  double accuracy = std::numeric_limits<double>::quiet_NaN();       ///< Share of right classes; NaN: values.
  double most_frequent = std::numeric_limits<double>::quiet_NaN();  ///< Share of the most frequent class.
};

/// The comparison where the model is clearly no better: its mean loss is above the guess's by more than twice the
/// standard error of the difference, and less than half of what the most frequent class gets wrong is right. Nothing
/// where it is better, or where there is no such guess: of tokens, of losses that a model gives itself, of tasks.
/// Cost: a forward pass over 64 examples at most, which are spread over the data; two where it is no better.
std::optional<BesideGuess> no_better_than_guess(const Stage& stage);

}  // namespace whence
