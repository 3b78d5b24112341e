#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/data/batch.h"

namespace whence {

/// What one layer with weights saw in a forward pass. With g the gradient of the summed losses at `output`, the layer's
/// per-example gradients follow from (input, g) without any per-example backward pass.
struct TapeEntry {
  enum class Kind {
    kLinear,       ///< Input [rows, in], output [rows, out], weight [out, in] or, transposed, [in, out].
    kConvolution,  ///< Input [B, in, H, W], output [B, out, H', W'], weight [out, in / groups, …] or, transposed,
                   ///< [in, out / groups]: `groups` matrices, each of a share of the inputs and of the outputs.
    kEmbedding,    ///< Input [rows] int64, output [rows, width], weight [count, width] or, transposed, [width, count];
                   ///< no bias.
    kScale,        ///< Input [rows, width], output input * weight + bias [rows, width], weight of width entries; or a
                   ///< bias alone.
  };
  /// Whether a weight is multiplied with inputs, so that input_columns() (taped_pass.h) are what its columns see.
  bool multiplies() const { return kind == Kind::kLinear || kind == Kind::kConvolution; }
  /// Whether a tuning can add to it: convolutions of groups and transposed ones are not computed by ops.h.
  bool takes_additions() const { return kind == Kind::kLinear || (multiplies() && groups == 1 && !transposed); }
  /// Of the matrix [outputs, inputs] that `weight` is, or that each of its groups is.
  std::int64_t outputs(const at::Tensor& of) const {
    return transposed ? of.numel() / of.size(0) : of.size(0) / groups;
  }
  Kind kind = Kind::kLinear;
  std::string weight, bias;  ///< Names of the parameters; empty where there is none.
  at::Tensor input;          ///< Detached.
  at::Tensor output;         ///< Part of the graph.
  RowMap rows = {};          ///< Which example each row belongs to; without places: row b is example b.
  bool transposed = false;
  bool joins = false;  ///< Its output is added to what a transformer's tokens carry from block to block.
  std::vector<std::int64_t> kernel = {}, padding = {}, stride = {};  ///< Convolution only,
  std::int64_t groups = 1;                                           ///< as this is.
  /// What makes the weight that this layer multiplies with, of its own and of others (addition.h); null: nothing does.
  std::shared_ptr<const Addition> made_by = {};
};

/// Where a model's attention looks: what a prefix fits.
struct AttentionSite {
  std::string module;  ///< Of which its layers are parts.
  std::int64_t key_heads = 0, head_width = 0;
};

/// Records the layers of one forward pass, in order. A null tape costs nothing.
struct Tape {
  /// Which to record, by their names; empty: all. What is not recorded is not tracked either.
  std::function<bool(const TapeEntry&)> wanted = {};
  std::vector<TapeEntry> entries = {};
  RowMap rows = {};  ///< What the entries to come are given: a model of texts sets it.
  std::vector<AttentionSite> attention = {};
};

}  // namespace whence
