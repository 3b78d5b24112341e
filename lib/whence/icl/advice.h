#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "whence/icl/ridge_view.h"

namespace whence {

/// What to do with a prompt: which demonstrations to take out, and whether the scores can tell.
struct Advice {
  struct Drop {
    std::int64_t demonstration;
    std::int64_t instead = -1;  ///< The class that the others give it; -1 where they give none.
  };
  std::vector<Drop> drop;  ///< The highest self score first.
  bool thin = false;       ///< Too little is known to call any demonstration wrong.
  double chance = 1;       ///< How often shuffled labels look as orderly as these; 1 where none were shuffled.
  std::string reason;      ///< For people: what the advice rests on.
};

/// Where outputs are classes: each label beside what the others' regression says without it (`scores.foretold`).
///
/// Its margin is the value of its own class less the largest other. Labels shuffled 199 times (a fixed seed) tell what
/// margins chance brings. If their mean reaches the real one more often than 1 in 10 times, the evidence is thin and
/// nothing is dropped. Else a demonstration is dropped where its margin is negative, at most 15 in 100 of the shuffled
/// margins are lower, and it does not help: `helpful` [n] is its mean test score over queries whose answer is given;
/// undefined: not asked. In prompts with 4 of 20 labels wrong, 92 % (SMS spam), 71 % (AG News) and 61 % (TREC) of what
/// it dropped was wrong, which was 74, 38 and 28 % of the wrong ones: tests/bench/icl/README.md.
/// Cost: the views again, and 400 n^2 C a layer.
Advice advise_by_labels(const IclTask& task, const IclScores& scores, const RidgeOptions& options,
                        const at::Tensor& helpful);

/// Where outputs do not repeat: those whose surprisal [n] is 5 nats, and 4 robust standard deviations, above the
/// median. Fewer than 5 demonstrations are too few.
Advice advise_by_surprisal(const at::Tensor& surprisal);

}  // namespace whence
