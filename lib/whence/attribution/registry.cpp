#include "whence/attribution/attributor.h"
#include "whence/core/room.h"

// One line a method: X(id, name, what it is, where it comes from). A file of lib/whence/attribution/ ends with
// WHENCE_METHOD(Attributor, ID, …).
#define WHENCE_ATTRIBUTORS(X)                                                                                       \
  X(influence, "influence", "inverse curvature times gradient, pulled back through the stages",                     \
    "Koh and Liang 2017; Chen et al. 2020")                                                                         \
  X(grad_dot, "grad-dot", "dot product of the gradients: influence with H = I", "Charpiat et al. 2019")             \
  X(grad_cos, "grad-cos", "cosine of the gradients: grad-dot with --normalize cosine", "Charpiat et al. 2019")      \
  X(tracin, "tracin", "dot products of the gradients, summed over the snapshots of training", "Pruthi et al. 2020") \
  X(trak, "trak", "random features of the margin's gradients, and their covariance's inverse", "Park et al. 2023")  \
  X(logra, "logra", "gradients projected layer by layer, and their covariance's inverse", "Choe et al. 2024")       \
  X(kernel, "kernel", "the fine-tune's kernel regression: its derivatives or exact leave-one-outs",                 \
    "Malladi et al. 2023")                                                                                          \
  X(rep_sim, "rep-sim", "similarity of what the last layer sees, without gradients", "Hanawa et al. 2021")          \
  X(random, "random", "standard normal numbers: the baseline of knowing nothing", "")

namespace whence {

WHENCE_ROOM(Attributor, "method", WHENCE_ATTRIBUTORS)

}  // namespace whence
