#pragma once
#include <string>

#include "whence/data/dataset.h"

namespace whence {

/// Throws DataError where all examples are of one class, which no loss can learn from: where there is no other class,
/// or `fresh` says that nothing but these examples decides what the classes are.
void check_classes_differ(const Dataset& data, bool fresh);

/// Where `mean` and `std` of the data's channels leave inputs that no model was trained on (33.3 taken from pixels in 0
/// to 1), the inputs' measured mean and deviation in one line, and what to look at; empty where they are plausible, or
/// nothing was done to channels. Cost: a pass over at most 1024 examples.
std::string input_scale_text(const Dataset& data);

}  // namespace whence
