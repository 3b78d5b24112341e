#include "whence/core/room.h"
#include "whence/icl/icl_method.h"
#include "whence/icl/state_kernel.h"

// One line a method or kernel: X(id, name, what it is, where it comes from). A file of lib/whence/icl/ ends with
// WHENCE_METHOD(IclMethod or StateKernel, ID, …).
#define WHENCE_ICL_METHODS(X)                                                                                        \
  X(ridge, "ridge", "influence in the ridge regression on hidden states, in closed form; exact leave-one-out",       \
    "DETAIL: Zhou et al. 2024")                                                                                      \
  X(embedding, "embedding", "cosine of given embeddings of the query's text and the demonstration's",                \
    "Liu et al. 2022")                                                                                               \
  X(attention, "attention", "given attention weights, averaged", "Jain and Wallace 2019")                            \
  X(surprisal, "surprisal", "minus the log-probability of each demonstration's own output in the prompt: self only", \
    "")                                                                                                              \
  X(random_scores, "random", "standard normal numbers: the baseline of knowing nothing", "")

#define WHENCE_STATE_KERNELS(X)                                         \
  X(dot, "dot", "inner product of hidden states", "Zhou et al. 2024")   \
  X(cosine, "cosine", "inner product of hidden states of length 1", "") \
  X(rbf, "rbf", "Gaussian of the distance; bandwidth by the median", "Gretton et al. 2012")

namespace whence {

WHENCE_ROOM(IclMethod, "method", WHENCE_ICL_METHODS)
WHENCE_ROOM(StateKernel, "kernel", WHENCE_STATE_KERNELS)

}  // namespace whence
