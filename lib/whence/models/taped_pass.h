#pragma once
#include <concepts>
#include <functional>
#include <string>
#include <vector>

#include "whence/core/tensors.h"
#include "whence/models/loss.h"
#include "whence/models/model.h"

namespace whence {

/// A value of each example, [B], by the model's output for a batch: the losses, or what is measured of queries. Keeps a
/// reference to a loss that it is made of.
class PerExample {
 public:
  PerExample(const Loss& loss)  // NOLINT: losses are what it mostly is
      : values_([&loss](const at::Tensor& output, const Batch& batch) { return loss.per_example(output, batch); }) {}
  PerExample(const Loss&&) = delete;
  template <std::invocable<const at::Tensor&, const Batch&> Values>
  PerExample(Values values)  // NOLINT
      : values_(std::move(values)) {}
  at::Tensor operator()(const at::Tensor& output, const Batch& batch) const { return values_(output, batch); }

 private:
  std::function<at::Tensor(const at::Tensor&, const Batch&)> values_;
};

/// Of a batch: the layers that a forward pass went through, and what a backward pass brings to the output of each. All
/// per-example derivatives are made of these two: a layer's gradients are products of its input and its signal, the
/// gradient of the summed values at its output, row by row. I. Goodfellow, "Efficient Per-Example Gradient
/// Computations", 2015. Parameters are constants here, and models may take derivatives of the first order for granted
/// (DerivativeOrder).
class TapedPass {
 public:
  /// The forward pass. `wanted` picks the layers that are kept, all by default; below the first of them nothing is
  /// tracked.
  TapedPass(const Model& model, const ParameterSet& theta, const Batch& batch,
            const std::function<bool(const TapeEntry&)>& wanted = {});

  const at::Tensor& output() const { return output_; }  ///< Part of the graph.
  /// In the order of the pass. A layer that is used twice, or a tied weight, has as many entries. Inputs are in the
  /// model's dtype.
  const std::vector<TapeEntry>& entries() const { return entries_; }

  /// A backward pass: the gradients of the sum of `values` at each entry's output. `values` is a function of output();
  /// `keep` lets another follow.
  TensorList signals(const at::Tensor& values, bool keep = false) const;
  /// The gradients of <start, output>.
  TensorList signals_from(const at::Tensor& start, bool keep = false) const;
  /// Those of 0.
  TensorList no_signals() const { return zeros_like(detach(outputs_)); }

 private:
  at::Tensor output_;
  std::vector<TapeEntry> entries_;
  TensorList outputs_;
};

/// One use of a layer, in algebra_type() of the model's dtype (core/rounding.h), the graph let go.
struct LayerUse {
  TapeEntry entry;    ///< Without its output.
  at::Tensor signal;  ///< Of the shape of the output.
};
/// One forward and one backward pass of `values`. Throws InvalidArgument, beginning with `what`, for one of the
/// parameters `wanted` that no recorded layer owns.
std::vector<LayerUse> layer_uses(const Model& model, const PerExample& values, const ParameterSet& theta,
                                 const Batch& batch, const std::vector<std::string>& wanted, const char* what);

/// x [rows, ...] as [B, rows of the longest example, ...], 0 where an example has fewer.
at::Tensor by_example(const TapeEntry& entry, const at::Tensor& x);
/// x [rows, ...] summed over each example's rows: [B, ...].
at::Tensor by_owner(const TapeEntry& entry, const at::Tensor& x);
/// What a linear layer or a convolution saw at each position (a token, a pixel; one for a plain layer): [B, T, inputs],
/// and of a signal [rows, …] at its output: [B, T, outputs].
at::Tensor input_positions(const TapeEntry& entry);
at::Tensor signal_positions(const TapeEntry& entry, const at::Tensor& signal);
/// A convolution's group, whose weight is rows of its own, as a convolution of one group: what it saw, and its share of
/// a signal. Views; of one group itself.
TapeEntry of_group(const TapeEntry& entry, std::int64_t group);
at::Tensor of_group(const TapeEntry& entry, const at::Tensor& signal, std::int64_t group);
/// A convolution's per-example gradients in its weight: [B, entries].
at::Tensor filter_gradients(const TapeEntry& entry, const at::Tensor& signal);
/// Per-example gradients in one of the parameters that a layer's weight is made of (addition.h): [B, entries], for a
/// linear layer or a convolution. Cost: the weight's gradient of each example, and its way back through
/// Addition::weight(). Memory: that of some examples at a time.
at::Tensor source_gradients(const ParameterSet& theta, const TapeEntry& entry, const at::Tensor& signal,
                            const std::string& source);
/// What the columns of [weight, bias] are multiplied with, those of the two that are asked for: [B, T, inputs + 1],
/// widened; 0 at places past a text's end.
at::Tensor input_columns(const TapeEntry& entry, bool weight, bool bias);

}  // namespace whence
