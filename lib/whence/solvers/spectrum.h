#pragma once
#include <cmath>
#include <vector>

#include "whence/core/progress.h"
#include "whence/core/random.h"
#include "whence/curvature/linear_operator.h"

namespace whence {

/// What a few products show of a symmetric operator's eigenvalues: their ends, their mean, and how they are spread.
struct Spectrum {
  double smallest = NAN;  ///< The ends are Ritz values: the true ends lie no further inside.
  double largest = NAN;
  double smallest_error = NAN;  ///< An eigenvalue lies within this distance of `smallest`; |A v - smallest v|.
  double largest_error = NAN;
  double mean = NAN;        ///< Of all eigenvalues: the trace over P.
  double mean_error = NAN;  ///< Standard error of `mean` over the probes; 0 for one probe.
  double trace = NAN;
  std::vector<double> nodes;    ///< The density's support, ascending: an eigenvalue drawn at random is near nodes[j]
  std::vector<double> weights;  ///< with probability weights[j]; they sum to 1.

  /// The share of eigenvalues below x, in [0, 1]. Piecewise constant between nodes.
  double fraction_below(double x) const;
};

/// Stochastic Lanczos quadrature: `steps` Lanczos steps, fully reorthogonalised, from each of `probes` random vectors.
/// Cost: probes * steps products, in blocks of `probes`; memory as many vectors. Throws InvalidArgument unless both are
/// >= 1, NumericalError where a product is not finite. S. Ubaru, J. Chen and Y. Saad, "Fast Estimation of tr(f(A)) via
/// Stochastic Lanczos Quadrature", SIAM J. Matrix Anal. Appl. 38 (2017); for networks B. Ghorbani, S. Krishnan and Y.
/// Xiao, "An Investigation into Neural Net Optimization via Hessian Eigenvalue Density", ICML 2019.
Spectrum estimate_spectrum(const LinearOperator& a, std::int64_t probes, std::int64_t steps, Random random,
                           const Progress& progress = {});

}  // namespace whence
