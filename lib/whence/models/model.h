#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/core/registry.h"
#include "whence/data/batch.h"
#include "whence/models/head.h"
#include "whence/models/tape.h"

namespace whence {

/// A pure function of (parameters, batch): no state, no dropout, no randomness; the same for any batch size.
class Model {
 public:
  virtual ~Model() = default;
  /// Whether inputs are texts (see LanguageModel), rather than numbers.
  virtual bool takes_texts() const { return false; }
  /// Which parameters belong to one stage. A model whose last layer is called otherwise says so: Head("fc").
  virtual Head head() const { return Head(); }
  /// The files that it was read from, without a tokenizer's; of one built from its spec none.
  virtual std::vector<std::filesystem::path> files() const { return {}; }
  /// Whether initial() has weights that were trained elsewhere: a first stage may then tune them.
  virtual bool is_trained() const { return false; }
  /// Where training starts, on the CPU: float64 where it is drawn. For inputs of `input_shape` (one example; empty for
  /// texts) and `outputs` numbers out, or for texts 0: the vocabulary. Throws InvalidArgument when the shape does not
  /// fit the model.
  virtual ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const = 0;
  /// [rows, outputs], a row an example or a predicted token, differentiable any number of times in theta and in the
  /// batch's inputs (DerivativeOrder), in the dtype of theta, of bfloat16 in float32. With a tape, records every layer
  /// that has weights, with outputs that autograd tracks even where theta is not tracked.
  virtual at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape = nullptr) const = 0;
  /// Whether output() records its layers. One that cannot is differentiated as a whole, and ignores a tape.
  virtual bool records_layers() const { return true; }
};

WHENCE_DECLARE_ROOM(Model)

}  // namespace whence
