#pragma once
#include <memory>
#include <string>
#include <vector>

#include "whence/attribution/attributor.h"
#include "whence/attribution/leverage.h"

namespace whence {

/// Whose examples are scored for their own losses, and how.
struct SelfInfluenceTask {
  Chain chain;
  std::size_t stage;
  std::shared_ptr<const Attributor> attributor;
  std::shared_ptr<const Curvature> curvature;
  /// Null: the cheapest exact way that takes about a minute at most, or else ekfac's factors.
  std::shared_ptr<const Solver> solver;
  InverseOptions options = {};
  std::int64_t block = 32;  ///< Examples that are solved for together, where solves are made.
  bool leverages = true;    ///< Whether they are looked for: far from a minimum they foretell no training.
};

struct SelfInfluence {
  at::Tensor scores;                     ///< [N] float64 on the CPU, in the order of the stage's data.
  std::string how;                       ///< "exact, by the matrix of 220 parameters".
  bool approximate = false;              ///< Not by the inverse that was asked for, but by factors, or by
                                         ///< forms that has_exact_forms() denies.
  std::vector<SolverSummary> summaries;  ///< One an example where solves were made.
  StageEvidence evidence;                ///< Where the method assumes a curvature.
  std::vector<Leverage> leverages;       ///< find_leverages() of the examples that move their own loss most.
  std::vector<std::string> warnings;     ///< Of a method that tests its assumptions (TestedSource) ...
  std::vector<std::string> notes;        ///< ... and what it took for granted.
};

/// The score of each example of a stage for its own loss at the end of that stage, whatever came after:
/// -g_i' H^-1 g_i for influence, never positive where H is positive definite. The examples whose loss would rise most
/// if they were left out are those that nothing else in the data speaks for: mislabelled ones, and rare ones. P. W. Koh
/// and P. Liang, ICML 2017, section 5.4; V. Feldman and C. Zhang, "What Neural Networks Memorize and Why", NeurIPS
/// 2020.
///
/// No N x N matrix is made. Cost: where the solver has its inverse as a matrix, P products and P^2 multiplications an
/// example; by factors, a fit and a pass over the data; for plain gradients a pass; else a solve an example. Throws
/// InvalidArgument for a method to which every example is the same to itself (grad-cos), NumericalError where a score
/// is not finite.
SelfInfluence self_influence(const SelfInfluenceTask& task, const Progress& progress);

/// How self_influence() would go about it, without doing it: what `how` would say.
std::string self_influence_plan(const SelfInfluenceTask& task);

}  // namespace whence
