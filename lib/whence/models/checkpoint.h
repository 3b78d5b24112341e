#pragma once
#include <string>

#include "whence/core/parameters.h"

namespace whence {

/// `found`, tensors read from `where`, in the order, dtype and device of `expected`, whose names and shapes it must
/// have. Throws DataError that names `where` and the tensor when one is missing, superfluous, of another shape, not
/// floating or not finite.
ParameterSet fit_checkpoint(const ParameterSet& expected, const ParameterSet& found, const std::string& where);

}  // namespace whence
