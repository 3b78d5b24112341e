#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "whence/solvers/solver.h"

namespace whence {

/// What the data of a stage is taken to have done to its result. formulas.md 9.2 and 9.7.
enum class Response {
  kStationary,       ///< Theta is a minimum, and moves with it.
  kProximalBregman,  ///< Theta need not be one: it minimises the stage's proximal Bregman objective around itself (J.
                     ///< Bae et al., "If Influence Functions are the Answer, Then What is the Question?", NeurIPS
                     ///< 2022), of which the Gauss-Newton chain with its cross blocks is the exact derivative.
  kSegment,  ///< Gradient descent stopped early: (1 - (1 - eta H)^T) / H, segment by segment between the snapshots
             ///< of training (J. Bae et al., "Training Data Attribution via Approximate Unrolling", NeurIPS 2024).
};
std::string_view to_string(Response response);

/// How the inverse curvature of every stage is taken.
struct InverseOptions {
  Response response = Response::kStationary;
  double time = 0;         ///< kSegment, for a stage without snapshots: the sum of its learning rates ...
  std::int64_t steps = 0;  ///< ... and how many they were; 0: infinitely many small ones.
  Inversion inversion = Inversion::kDamped;
  double damping = 0;                      ///< Absolute.
  double relative_damping = 0;             ///< Times the mean eigenvalue of the stage's curvature; added to `damping`.
  std::vector<double> least_damping = {};  ///< A stage's is no less than its entry, whatever the others come to.

  /// What is made of a curvature's eigenvalues, the response included.
  Inversion effective_inversion() const { return response == Response::kSegment ? Inversion::kSegment : inversion; }
};

/// Sets response, time and steps from "stationary", "proximal-bregman" or "segment:time=12,steps=300". Throws
/// InvalidArgument with the known words.
void set_response(std::string_view spec, InverseOptions& options);

}  // namespace whence
