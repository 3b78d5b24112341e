#include "whence/models/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/error.h"

namespace whence {
namespace {

at::Tensor fit(const at::Tensor& expected, const at::Tensor& found, const std::string& what) {
  if (found.sizes() != expected.sizes()) {
    throw DataError(fmt::format("{} has shape [{}], expected [{}]", what, fmt::join(found.sizes(), ", "),
                                fmt::join(expected.sizes(), ", ")));
  }
  if (!found.is_floating_point()) {
    throw DataError(fmt::format("{} has dtype {}, expected a floating one", what, c10::toString(found.scalar_type())));
  }
  const auto value = found.detach().to(expected.options(), /*non_blocking=*/false, /*copy=*/true);
  const auto bad = at::isfinite(value).logical_not().sum().item<std::int64_t>();
  if (bad > 0) {
    throw DataError(fmt::format("{} is not finite: {} of {} entries are NaN or infinite as {}", what, bad,
                                value.numel(), c10::toString(value.scalar_type())));
  }
  return value;
}

}  // namespace

ParameterSet fit_checkpoint(const ParameterSet& expected, const ParameterSet& found, const std::string& where) {
  for (const auto& name : found.names()) {
    if (!expected.contains(name)) {
      throw DataError(fmt::format("{}: {}", where, unknown_name("tensor", name, expected.names())));
    }
  }
  TensorList values;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& name = expected.names()[i];
    if (!found.contains(name)) {
      throw DataError(fmt::format("{}: tensor \"{}\" is missing; {} of {} expected tensors are there", where, name,
                                  found.size(), expected.size()));
    }
    values.push_back(fit(expected.values()[i], found.at(name), fmt::format("{}: tensor \"{}\"", where, name)));
  }
  return expected.with(std::move(values));
}

}  // namespace whence
