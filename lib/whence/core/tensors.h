#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace whence {

/// A vector of parameter space: one tensor per parameter, in parameter order.
using TensorList = std::vector<at::Tensor>;

/// A block of vectors is one tensor [K, P]: K vectors, one a row, each the parameters' entries laid end to end in
/// parameter order. Operators and solvers work on blocks, models on lists; the three functions below convert.

std::int64_t count_entries(const TensorList& x);
/// [P], a copy.
at::Tensor flatten(const TensorList& x);
/// Views of row `row` ([P]) shaped as `shapes`.
TensorList unflatten(const at::Tensor& row, const TensorList& shapes);

/// Leaves that autograd tracks, sharing the values' memory.
TensorList leaves(const TensorList& values);
TensorList detach(const TensorList& values);
TensorList clone(const TensorList& values);
TensorList zeros_like(const TensorList& values);

/// [K, ...] as [K, entries]: a view where it can be. Numbers [K] are [K, 1].
at::Tensor rows_of(const at::Tensor& block);

/// sum over all entries of a * b, accumulated in double in an order that does not depend on the thread count.
double exact_dot(const at::Tensor& a, const at::Tensor& b);
double exact_dot(const TensorList& a, const TensorList& b);
/// <a_k, b_k> of each row of two [K, P] blocks, accumulated in double: [K] float64 on the CPU.
at::Tensor row_dots(const at::Tensor& a, const at::Tensor& b);
/// |a_k| of each row: [K] float64 on the CPU.
at::Tensor row_norms(const at::Tensor& a);
/// y += a * x
void axpy(double a, const TensorList& x, TensorList& y);

/// Throws NumericalError, naming `what`, when any entry of `x` is not finite.
void check_finite(const at::Tensor& x, const char* what);
void check_finite(const TensorList& x, const char* what);

/// The gradient of the scalar `y` (or of <y, cotangent>) at `x`; zeros where y does not depend on an x.
TensorList gradient(const at::Tensor& y, const TensorList& x, bool create_graph = false, bool retain_graph = false);
TensorList gradient(const TensorList& y, const TensorList& x, const TensorList& cotangent, bool create_graph = false,
                    bool retain_graph = false);

}  // namespace whence
