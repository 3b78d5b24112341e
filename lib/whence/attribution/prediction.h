#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "whence/stages/stage.h"

namespace whence {

/// What a model says of one query, and what was expected. Which parts are there depends on the targets.
struct Prediction {
  static constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

  std::string predicted = {}, expected = {};  ///< Classes by name, or a value each. Empty where tokens are predicted.
  double probability = kAbsent;               ///< Of the predicted class.
  double expected_probability = kAbsent;      ///< Of the expected class.
  std::int64_t tokens = 0;                    ///< Predicted tokens,
  std::int64_t first_choices = 0;             ///< those of them that the model finds likeliest in their place,
  double perplexity = kAbsent;                ///< and exp of their mean negative log-probability.
};

/// What the chain's last stage says of every query; empty where it gives its loss alone. Throws as check_measurable().
/// Cost: one forward pass over the queries.
std::vector<Prediction> predict(const Stage& last, const Dataset& queries);

}  // namespace whence
