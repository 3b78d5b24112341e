#include "whence/solvers/solver.h"

// One line a solver: X(id, name, what it is, where it comes from). The file lib/whence/solvers/ID.cpp ends with
// WHENCE_METHOD(Solver, ID, …).
#define WHENCE_SOLVERS(X)                                                                               \
  X(cg, "cg", "block conjugate gradients: right-hand sides share one Krylov space", "O'Leary 1980")     \
  X(lanczos, "lanczos", "any function of the curvature, from the Krylov space of each right-hand side", \
    "Druskin and Knizhnerman 1989")                                                                     \
  X(lissa, "lissa", "truncated Neumann series; preconditioned it is ASTRA",                             \
    "Agarwal, Bullins and Hazan 2017; Wang et al. 2025")                                                \
  X(nystroem, "nystroem", "the inverse of a random low-rank sketch", "Frangella, Tropp and Udell 2023") \
  X(arnoldi, "arnoldi", "the inverse on the leading eigenvectors", "Schioppa et al. 2022")              \
  X(identity, "identity", "no curvature: x = b", "Pruthi et al. 2020")                                  \
  X(direct, "direct", "the dense matrix, factored by Eigen; small models", "Koh and Liang 2017, section 2")

namespace whence {

#define X(id, name, summary, source) WHENCE_DECLARE_METHOD(Solver, id)
WHENCE_SOLVERS(X)
#undef X

template <>
std::span<const Method<Solver>> methods<Solver>() {
#define X(id, name, summary, source) {name, summary, source, &make_##id, &options_##id},
  static constexpr Method<Solver> table[] = {WHENCE_SOLVERS(X)};
#undef X
  return table;
}

template <>
std::string_view room_noun<Solver>() {
  return "solver";
}

}  // namespace whence
