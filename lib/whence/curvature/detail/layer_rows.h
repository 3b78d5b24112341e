#pragma once
#include <vector>

#include "whence/curvature/detail/layer_layout.h"
#include "whence/models/taped_pass.h"

namespace whence::detail {

/// Which gradients are the rows of J.
enum class RowKind {
  kGaussNewton,  ///< exact_rows() an example: the columns of the loss Hessian's root, pulled back.
  kFisher,       ///< `samples` rows: gradients for labels drawn from the model, over sqrt(samples).
  kEmpirical,    ///< One row: the gradient for the example's own label.
};
struct RowChoice {
  RowKind kind = RowKind::kGaussNewton;
  at::Tensor noise =
      {};  ///< kFisher: [samples, predictions, width], so that an example's labels do not depend on its batch.
};
/// Rows of an example that make the Gauss-Newton matrix exactly: one an output and, of texts whose tokens are
/// predicted, each token its own, since J' H J sums over tokens after squaring. As many for every example as for the
/// longest.
std::int64_t exact_rows(const Dataset& data);
/// With its noise drawn.
RowChoice make_rows(RowKind kind, std::int64_t samples, std::uint64_t seed, const Objective& objective);

/// What the layers saw of one batch: inputs, and signals of R cotangents at the outputs. Inputs [B, T, columns] over T
/// positions (1 for a dense layer, pixels of a convolution, uses of a layer that is used again), signals [B, R, T,
/// outputs]; a row's gradient in the layer is sum_t signal_t input_t'. Scaled so that J' J is the mean over the data.
/// Both are 0 past the end of a text, and in algebra_type() of the passes (core/rounding.h), as all that is made of
/// them.
struct LayerRows {
  LayerLayout::Layer layer;
  std::int64_t examples = 0;  ///< B
  at::Tensor input, signal;
  at::Tensor formed = {};   ///< The gradients themselves, [B R, entries], in place of both where that is smaller.
  at::Tensor lengths = {};  ///< Positions of each example, [B]; undefined: all T.
  /// Of an embedding, [outputs, columns] with a row a token: `formed` is [U, R, columns], for the U pairs of an example
  /// and a token that it uses, [U] each.
  at::Tensor owner = {}, token = {};
};

/// The layer's part of J x for x [K, outputs, columns]: [B, R, K].
at::Tensor layer_times(const LayerRows& rows, const at::Tensor& x);
/// The layer's part of J' u for u [B, R, K]: [K, outputs, columns].
at::Tensor layer_transposed(const LayerRows& rows, const at::Tensor& u);
/// |row|^2 in the layer, summed over each example's rows: [B].
at::Tensor squared_norms(const LayerRows& rows);
/// out [rows of a, rows of b] += scale * J_a J_b' of an embedding.
void add_embedding_gram(const LayerRows& a, const LayerRows& b, double scale, at::Tensor& out);

/// What a parameter outside the layers saw of one batch, for R cotangents, at one of its uses. Where an example uses a
/// matrix (one too wide, a tied head) at several places, the squares below take the places for independent, as the
/// labels drawn there are; an embedding's, a norm's and a bias's are exact.
struct OtherRows {
  LayerLayout::Other parameter;
  bool bias = false;
  TapeEntry entry;     ///< With its input and rows.
  TensorList signals;  ///< [R] of [rows, width].
  std::int64_t examples = 0;
  ParameterSet theta = {};  ///< The model's, where the parameter is one of those that the layer's weight is made of.

  /// Each example's gradient for one of the signals, [B, entries], of a parameter that is neither an embedding's nor a
  /// linear layer's matrix.
  at::Tensor gradients(const at::Tensor& signal) const;
  /// Whether it is.
  bool forms() const {
    return bias || entry.made_by || entry.kind == TapeEntry::Kind::kScale ||
           entry.kind == TapeEntry::Kind::kConvolution;
  }
  /// The sum over the rows of the squared entries of their gradients: [entries].
  at::Tensor squares() const;
  /// The sums over each example's rows of gains . gradient^2, gains [entries]: [B].
  at::Tensor quadratic_forms(const at::Tensor& gains) const;
};

/// Rows of one batch, for the layers of a layout; where that is of Beside::kRows, layers() has its others() too. Cost:
/// a forward pass and R backward passes that form no parameter gradient.
class RowBatch {
 public:
  /// `form`: replace inputs and signals by gradients where those take less memory.
  RowBatch(const Objective& objective, const ParameterSet& merged, const Batch& batch, const RowChoice& choice,
           const LayerLayout& layout, bool form);
  const std::vector<LayerRows>& layers() const { return layers_; }
  const std::vector<OtherRows>& others() const { return others_; }
  std::int64_t rows() const { return examples_ * per_example_; }
  std::int64_t examples() const { return examples_; }
  std::int64_t per_example() const { return per_example_; }

  /// J x: [K, P] to [K, rows].
  at::Tensor times(const at::Tensor& x) const;
  /// out [K, P] += J' u.
  void add_transposed(const at::Tensor& u, at::Tensor& out) const;
  double bytes() const;

 private:
  std::int64_t examples_ = 0, per_example_ = 0;
  std::vector<LayerRows> layers_;
  std::vector<OtherRows> others_;
};

}  // namespace whence::detail
