#include "whence/core/registry.h"

#include "whence/core/room.h"
#include "whence/training/optimizer.h"
#include "whence/training/priming.h"

// One line a method: X(identifier, name, what it is, where it comes from). The file lib/whence/training/IDENTIFIER.cpp
// ends with WHENCE_METHOD(Optimizer, IDENTIFIER, …).
#define WHENCE_OPTIMIZERS(X)                                                                                           \
  X(lbfgs, "lbfgs", "limited-memory BFGS over all the data: down to rounding on small models", "Liu and Nocedal 1989") \
  X(adam, "adam", "minibatches, steps scaled by mean squared gradients", "Kingma and Ba 2015")                         \
  X(adamw, "adamw", "adam with a weight decay apart from the gradient", "Loshchilov and Hutter 2019")                  \
  X(sgd, "sgd", "minibatches, with momentum", "Robbins and Monro 1951; Polyak 1964")

// The same of WHENCE_METHOD(Priming, IDENTIFIER, …).
#define WHENCE_PRIMINGS(X)                                                                                            \
  X(maml, "maml", "a body whose light parameters learn a task in a few steps: their result is what it is trained by", \
    "Gheini, Ma and May 2023; Finn, Abbeel and Levine 2017")

namespace whence {

WHENCE_ROOM(Optimizer, "optimizer", WHENCE_OPTIMIZERS)
WHENCE_ROOM(Priming, "priming", WHENCE_PRIMINGS)

}  // namespace whence
