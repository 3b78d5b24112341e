#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

namespace whence {

/// What each dtype can carry, in one place. Passes of a model go through in its own dtype. What is made of them
/// (losses, rows of J, sums over the data, products of vectors, factorisations, recurrences, scores) is computed in
/// algebra_type() of it: three digits carry a pass, but no solve.

/// The spacing of numbers next to 1: 2.2e-16 in float64, 1.2e-7 in float32, 7.8e-3 in bfloat16.
double epsilon(c10::ScalarType type);
/// The relative size at which rounding hides whether a row depends on others, where factorisations leave it out: 1e-13
/// in float64, 1e-6 in float32. To leave out more costs block iterations dearly: at 1e-5 in float64 they need fifteen
/// times as many.
double dependence(c10::ScalarType type);
/// What orthogonalising a product leaves of nothing, relative to the operator: a Krylov space ends there.
double breakdown(c10::ScalarType type);
/// The best step of a central difference, relative to the point: about the cube root of the spacing.
double difference_step(c10::ScalarType type);

/// Float32 for the shorter types, for which there is no algebra; float64 for itself.
c10::ScalarType algebra_type(c10::ScalarType type);
at::TensorOptions algebra_options(const at::TensorOptions& options);
/// x in its algebra_type(); as it is where it holds no numbers of floating point.
at::Tensor widened(const at::Tensor& x);
std::vector<at::Tensor> widened(const std::vector<at::Tensor>& x);

/// log(1 + e^x), which and whose derivatives of every order keep their digits however near to 0 they are.
at::Tensor exact_softplus(const at::Tensor& x);

/// As --dtype spells it: "bfloat16".
std::string_view dtype_name(c10::ScalarType type);
/// What to type where rounding of passes in `type` has the last word: "use --dtype float64, raise the damping, or …".
std::string rounding_remedy(c10::ScalarType type);

}  // namespace whence
