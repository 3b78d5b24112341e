#include "whence/core/room.h"
#include "whence/kernels/kernel_solver.h"
#include "whence/kernels/tangent_kernel.h"

// One line a kernel or solver: X(id, name, what it is, where it comes from). A file of lib/whence/kernels/ ends with
// WHENCE_METHOD(TangentKernel or KernelSolver, ID, …).
#define WHENCE_TANGENT_KERNELS(X)                                                                                  \
  X(entk, "entk", "products of the outputs' gradients: what a step of SGD on one does to the other",               \
    "Jacot et al. 2018; Malladi et al. 2023")                                                                      \
  X(signgd, "signgd", "products of the gradients' signs", "Malladi et al. 2023")                                   \
  X(a_signgd, "a-signgd", "products of gradients with the columns' signs: what a first step of Adam on them does", \
    "Malladi et al. 2023")

#define WHENCE_KERNEL_SOLVERS(X)                                                                                    \
  X(kernel_ridge, "kernel-ridge", "ridge regression on the targets; exact leave-one-out in closed form",            \
    "Saunders et al. 1998")                                                                                         \
  X(least_squares, "least-squares", "the regression of least norm; exact leave-one-out in closed form", "")         \
  X(kernel_logistic, "kernel-logistic", "binary or multinomial logistic regression, lambda by cross-validation",    \
    "Zhu and Hastie 2005")                                                                                          \
  X(support_vectors, "support-vectors", "support vectors by libsvm, one class against the others",                  \
    "Cortes and Vapnik 1995; Chang and Lin 2011")                                                                   \
  X(asymmetric, "asymmetric", "least-squares support vectors in both directions of a kernel that is not symmetric", \
    "AsK-LS: He et al. 2022")

namespace whence {

WHENCE_ROOM(TangentKernel, "tangent kernel", WHENCE_TANGENT_KERNELS)
WHENCE_ROOM(KernelSolver, "kernel solver", WHENCE_KERNEL_SOLVERS)

}  // namespace whence
