#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "whence/core/random.h"
#include "whence/models/detail/transformer_config.h"

namespace whence::detail {

/// A parameter of a model that config.json describes.
struct DeclaredParameter {
  enum class Start { kNormal, kOnes, kZeros };
  std::string name;
  std::vector<std::int64_t> shape;
  Start start = Start::kNormal;
};

/// Every parameter of the model, with a head for so many classes, or for 0 the vocabulary's.
std::vector<DeclaredParameter> declared_parameters(const TransformerConfig& config, std::int64_t classes);

/// Where training from nothing begins: float64, of a random stream that bears the parameter's name.
at::Tensor fresh_parameter(const DeclaredParameter& parameter, const TransformerConfig& config, const Random& random);

}  // namespace whence::detail
