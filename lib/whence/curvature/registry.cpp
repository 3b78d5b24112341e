#include "whence/core/room.h"
#include "whence/curvature/curvature.h"

// One line a family: X(id, name, what it is, where it comes from). The file lib/whence/curvature/ID.cpp ends with
// WHENCE_METHOD(Curvature, ID, …).
#define WHENCE_CURVATURES(X)                                                                             \
  X(hessian, "hessian", "the exact second derivative", "Pearlmutter 1994")                               \
  X(gauss_newton, "gauss-newton", "J' H J, positive semidefinite for convex losses", "Schraudolph 2002") \
  X(fisher, "fisher", "gradients for labels drawn from the model", "Kunstner et al. 2019")               \
  X(empirical_fisher, "empirical-fisher", "gradients for the data's own labels", "Kunstner et al. 2019") \
  X(diagonal, "diagonal", "the diagonal of the Gauss-Newton matrix", "LeCun, Denker and Solla 1990")     \
  X(kfac, "kfac", "a Kronecker product a layer", "Martens and Grosse 2015; Grosse and Martens 2016")     \
  X(ekfac, "ekfac", "kfac's eigenvectors with the eigenvalues that fit best", "George et al. 2018; Grosse et al. 2023")

namespace whence {

WHENCE_ROOM(Curvature, "curvature", WHENCE_CURVATURES)

}  // namespace whence
