#include "truth.h"
#include "whence/core/room.h"

// One line a word of --against: X(id, name, what is done, ""). A file tools/truth_….cpp ends with
// WHENCE_METHOD(cli::Truth, ID, …).
#define WHENCE_TRUTHS(X)                                              \
  X(retraining, "retraining", "leave examples out one at a time", "") \
  X(lds, "lds", "train on random subsets", "")                        \
  X(removal, "removal", "leave the strongest out together", "")       \
  X(mislabel, "mislabel", "change labels, and look for them", "")     \
  X(recall, "recall", "known sources", "")                            \
  X(further_training, "further-training", "leave one out where training goes on from the checkpoint", "")

namespace whence {

WHENCE_ROOM(cli::Truth, "--against", WHENCE_TRUTHS)

}  // namespace whence
