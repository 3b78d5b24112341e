#include "whence/core/symmetric_eigen.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"

namespace whence {

SymmetricEigen symmetric_eigen(const at::Tensor& matrix, const std::string& what) {
  if (!matrix.isfinite().all().item<bool>()) {
    throw NumericalError(fmt::format("{} has entries that are NaN or infinite", what));
  }
  if (matrix.scalar_type() != at::kDouble) {
    try {
      const auto [values, vectors] = at::linalg_eigh(matrix);
      return {values, vectors};
    } catch (const c10::LinAlgError&) {  // in float64 below
    }
  }
  try {
    const auto [values, vectors] = at::linalg_eigh(matrix.to(at::kDouble));
    return {values.to(matrix.scalar_type()), vectors.to(matrix.scalar_type())};
  } catch (const c10::LinAlgError&) {
    throw NumericalError(fmt::format("{} [{}, {}]: its eigenvectors could not be found, in float64 either", what,
                                     matrix.size(0), matrix.size(1)));
  }
}

}  // namespace whence
