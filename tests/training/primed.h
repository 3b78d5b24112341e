#pragma once
#include <string>
#include <vector>

#include "support/toy_chain.h"
#include "whence/training/priming.h"

namespace whence::test {

/// Tasks a, b and c, of examples that take turns; c has the fewest.
inline std::vector<std::string> toy_tasks(std::int64_t examples) {
  std::vector<std::string> out;
  for (std::int64_t i = 0; i < examples; ++i) {
    out.emplace_back(i % 5 == 4 ? "c" : i % 2 == 0 ? "a" : "b");
  }
  return out;
}

/// A primed stage of a small net as it begins, on values.
inline StageParts primed_parts(const std::string& name, const std::string& priming, Random random,
                               const std::string& tuning = "full", std::int64_t examples = 12) {
  return {.name = name,
          .model = create<Model>("mlp:widths=4,activation=tanh"),
          .loss = create<Loss>("squared-error"),
          .tuning = create<Tuning>(tuning),
          .data = toy_data("squared-error", examples, 3, random.stream("data")),
          .weight_decay = 0.05,
          .priming = create<Priming>(priming),
          .tasks = toy_tasks(examples)};
}

}  // namespace whence::test
