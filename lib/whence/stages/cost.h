#pragma once
#include <string_view>

#include "whence/solvers/solver.h"
#include "whence/stages/stage.h"

namespace whence {

/// Seconds that the gradient of all of a stage's data takes here and now, measured on a few batches and told of all as
/// if they were alike. Cost: up to four batches.
double gradient_seconds(const Stage& stage);
/// The same on a reference machine, by what the operators do in one batch (core/operation_count.h): equal every time,
/// whatever else runs, so that what is chosen by it is too. Cost: a batch.
double nominal_gradient_seconds(const Stage& stage);

/// What a product with the curvature of a stage costs, in its gradients.
inline constexpr double kPassesAProduct = 2;

/// How many products with the curvature a solver takes for a query.
struct ProductCount {
  double low = 0, high = 0;
  bool known = true;  ///< False for solvers whose products cannot be told before.
  double once = 0;    ///< Besides, whatever the queries.
  /// One number for both: their geometric mean.
  double expected() const;
};
/// Of specs, auto being what it will pick for the stage. Throws InvalidArgument as create() does.
ProductCount product_count(std::string_view solver, std::string_view curvature, const Stage& stage,
                           Inversion inversion);

/// What solver auto will be at a stage, as a spec: exact where that is cheap, else preconditioned conjugate gradients.
std::string auto_spec(std::string_view solver, std::string_view curvature, const Stage& stage, Inversion inversion);

/// Seconds that solving for so many queries is expected to take at a stage, its gradient taking `pass` seconds.
double solve_seconds(const ProductCount& products, std::int64_t queries, double pass);

/// Whether a curvature's spec names one whose eigenvectors come with it, which solver auto then inverts by.
bool is_spectral(std::string_view curvature);

/// "12 s", "3 min" or "2.5 h".
std::string seconds_text(double seconds);

}  // namespace whence
