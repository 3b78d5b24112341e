#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

namespace whence {

/// Which example each row of an activation [rows, ...] belongs to, where an example has several rows.
struct RowMap {
  at::Tensor owners;  ///< [rows] int64: the example, 0 .. B-1. Rows of padding say 0; nothing depends on them.
  at::Tensor places;  ///< [B, L] int64: the rows of each example, in order; -1 past its end.
  at::Tensor
      origins;  ///< [rows] int64: the place in the flattened inputs of each row; undefined: rows are those places.
  bool plain = false;  ///< Row b * L + l is place l of example b, padding included.
};

/// Where the tokens of a batch's examples lie in `inputs` [R, T]. Short examples may share a row; none sees another.
struct TokenLayout {
  RowMap tokens;         ///< Rows are the places of the flattened inputs, 0 .. R T - 1.
  at::Tensor examples;   ///< [R, T] int64: the example at each place; -1 where padded.
  at::Tensor positions;  ///< [R, T] int64: the place within its example; 0 where padded.
  at::Tensor lengths;    ///< [B] int64: tokens of each example.
  at::Tensor types;      ///< [R, T] int64 token types; undefined: all 0.

  /// Where tokens are predicted: M places whose outputs have a target, example by example. Undefined otherwise.
  at::Tensor predicted;  ///< [M] int64: places of the flattened inputs.
  RowMap predictions;    ///< Rows are the M predictions.
  at::Tensor serials;    ///< [M] int64: the prediction's number in its dataset, whatever the batch.

  /// Where the answer is one of several words: read at one place of each example. Undefined otherwise.
  at::Tensor asked;  ///< [B] int64: places of the flattened inputs.
  at::Tensor words;  ///< [C] int64: the tokens that stand for the classes.
};

/// Some examples of one dataset. Dimension 0 of every tensor is the example, but for texts' inputs and targets.
struct Batch {
  at::Tensor inputs;   ///< [B, ...]; of texts [R, T] int64 tokens.
  at::Tensor targets;  ///< [B] int64 class numbers, or [B, k] values, or [M] int64 tokens to be predicted.
  at::Tensor ids;      ///< [B] int64: the row of each example in its source, before any filter.
  at::Tensor rows;     ///< [B] int64: the row of each example in its dataset, 0 .. N-1.
  std::optional<TokenLayout> text = {};
  bool sampled = false;  ///< Whether a tuning that draws parameters for each example draws them for these.
  std::int64_t size() const { return text ? text->lengths.size(0) : inputs.size(0); }
  /// Whether outputs are one row a predicted token, rather than one an example.
  bool predicts_tokens() const { return text && text->predicted.defined(); }
};

/// "example 17": an example by its row in its source.
std::string example_text(const Batch& batch, std::int64_t row);

/// The sums over each example's rows of x [rows, ...]: [B, ...].
at::Tensor sum_rows(const RowMap& map, const at::Tensor& x);
/// The rows of x [rows, ...] by example: [B, L, ...], zeros past an example's end (plain maps: what the padding holds).
at::Tensor rows_by_example(const RowMap& map, const at::Tensor& x);

/// The map of what `parts` rows in place of each row of an activation belong to: row r's are r parts .. r parts + parts
/// - 1.
RowMap split_rows(const RowMap& map, std::int64_t parts);
/// The map of the rows `chosen` [m] int64, rising, of an activation: row i is chosen[i]. `map` has places.
RowMap some_rows(const RowMap& map, const at::Tensor& chosen);

/// Of each row of the model's output, what belongs to its example, from x [B, ...]: [rows of the output, ...].
at::Tensor spread_to_outputs(const Batch& batch, const at::Tensor& x);
/// The sums over each example's outputs of x [rows of the output, ...]: [B, ...].
at::Tensor sum_outputs(const Batch& batch, const at::Tensor& x);

}  // namespace whence
