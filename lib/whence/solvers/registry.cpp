#include "whence/core/room.h"
#include "whence/solvers/solver.h"

// One line a solver: X(id, name, what it is, where it comes from). The file lib/whence/solvers/ID.cpp ends with
// WHENCE_METHOD(Solver, ID, …).
#define WHENCE_SOLVERS(X)                                                                               \
  X(automatic, "auto", "picks one of the others by what the operator is and how large", "measured")     \
  X(cg, "cg", "block conjugate gradients: right-hand sides share one Krylov space", "O'Leary 1980")     \
  X(lanczos, "lanczos", "any function of the curvature, from the Krylov space of each right-hand side", \
    "Druskin and Knizhnerman 1989")                                                                     \
  X(lissa, "lissa", "truncated Neumann series; preconditioned it is ASTRA",                             \
    "Agarwal, Bullins and Hazan 2017; Wang et al. 2025")                                                \
  X(nystroem, "nystroem", "the inverse of a random low-rank sketch", "Frangella, Tropp and Udell 2023") \
  X(arnoldi, "arnoldi", "the inverse on the leading eigenvectors", "Schioppa et al. 2022")              \
  X(identity, "identity", "no curvature: x = b", "Pruthi et al. 2020")                                  \
  X(direct, "direct", "the dense matrix, factored; small models", "Koh and Liang 2017, section 2")      \
  X(woodbury, "woodbury", "exact in the dual, over rows of J", "Woodbury 1950")                         \
  X(ekfac_inverse, "ekfac", "the inverse of Kronecker factors, as it stands",                           \
    "George et al. 2018; Grosse et al. 2023")                                                           \
  X(datainf, "datainf", "the mean of the examples' inverses", "Kwon et al. 2024")

namespace whence {

WHENCE_ROOM(Solver, "solver", WHENCE_SOLVERS)

}  // namespace whence
