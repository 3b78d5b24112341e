#pragma once
#include <string_view>

#include "whence/solvers/solver.h"
#include "whence/stages/stage.h"

namespace whence {

/// Seconds of a processor that the gradient of all of a stage's data takes on this machine, measured on a few batches
/// and told of all as if they were alike. Cost: up to four batches.
double gradient_seconds(const Stage& stage);
/// The same on a reference machine, by what the operators do in one batch (core/operation_count.h): equal every time,
/// whatever else runs, so that what is chosen by it is too. Cost: a batch.
double nominal_gradient_seconds(const Stage& stage);

/// What a product with the curvature of a stage costs, in its gradients.
inline constexpr double kPassesAProduct = 2;

/// How many products a solver takes for a query at a stage. Specs; throws InvalidArgument as create() does.
ProductCount product_count(std::string_view solver, std::string_view curvature, const Stage& stage,
                           Inversion inversion);

/// The spec of the solver that will be at work at a stage: the one that `solver` picks, or itself.
std::string solver_at_work(std::string_view solver, std::string_view curvature, const Stage& stage,
                           Inversion inversion);

/// Seconds that solving for so many queries (or shares of one, in what they add) is expected to take at a stage, its
/// gradient taking `pass` seconds.
double solve_seconds(const ProductCount& products, double queries, double pass);

/// "12 s", "3 min" or "2.5 h".
std::string seconds_text(double seconds);

}  // namespace whence
