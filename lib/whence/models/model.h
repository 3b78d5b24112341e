#pragma once
#include <memory>

#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/core/registry.h"
#include "whence/data/batch.h"
#include "whence/models/tape.h"

namespace whence {

/// A pure function of (parameters, batch): no state, no dropout, no randomness; the same for any batch size. Parameters
/// named `head.*` belong to one stage, all others are the body, which a stage hands on.
class Model {
 public:
  virtual ~Model() = default;
  /// Fresh parameters, float64 on the CPU, for inputs of `input_shape` (one example) and `outputs` numbers out. Throws
  /// InvalidArgument when the shape does not fit the model.
  virtual ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const = 0;
  /// [B, outputs], differentiable any number of times in theta and in the batch's inputs, in the dtype of theta. With a
  /// tape, records every layer that has weights, with outputs that autograd tracks even where theta is not tracked.
  virtual at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape = nullptr) const = 0;
};

template <>
std::span<const Method<Model>> methods<Model>();
template <>
std::string_view room_noun<Model>();

}  // namespace whence
