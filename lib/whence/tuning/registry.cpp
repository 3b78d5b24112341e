#include "whence/core/room.h"
#include "whence/tuning/tuning.h"

// One line a tuning: X(id, name, what it is, where it comes from). The file lib/whence/tuning/ID.cpp ends with
// WHENCE_METHOD(Tuning, ID, …).
#define WHENCE_TUNINGS(X)                                                                                       \
  X(full, "full", "train every parameter, with a pull of the body towards the parent's", "Chen et al. 2020")    \
  X(head, "head", "train the head alone on the parent's body", "Chen et al. 2020")                              \
  X(lora, "lora", "a low-rank change beside each weight", "Hu et al. 2022")                                     \
  X(hut, "hut", "each weight times low-rank patterns, entry by entry", "Zhang, Zhou and Chen 2024")             \
  X(ia3, "ia3", "a scale for each number that a layer gives", "Liu et al. 2022")                                \
  X(bias, "bias", "a shift of what each layer gives", "Ben Zaken, Ravfogel and Goldberg 2022")                  \
  X(adapter, "adapter", "a bottleneck behind layers", "Houlsby et al. 2019")                                    \
  X(hira, "hira", "each weight times a low-rank pattern, beside itself", "Huang et al. 2025")                   \
  X(hra, "hra", "each weight behind reflections of its inputs", "Yuan, Liu and Xu 2024")                        \
  X(norm, "norm", "layer norms alone", "Zhao et al. 2024")                                                      \
  X(prefix, "prefix", "keys and values that every text sees before its own", "Li and Liang 2021")               \
  X(prefix_simplex, "prefix-simplex", "prefixes and heads that span a simplex, a point of it for each example", \
    "Falissard et al. 2023")                                                                                    \
  X(prompt, "prompt", "vectors before every text's embedded tokens", "Lester et al. 2021")

namespace whence {

WHENCE_ROOM(Tuning, "tuning", WHENCE_TUNINGS)

}  // namespace whence
