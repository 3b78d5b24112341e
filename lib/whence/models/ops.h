#pragma once
#include <string>
#include <string_view>

#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/models/tape.h"

namespace whence {

/// What models are built of. Every function is differentiable any number of times. Those with weights take the tape:
/// with one they record what they saw, and return an output that autograd tracks even where neither x nor theta is
/// tracked. Linear layers, convolutions and embeddings do what theta's additions say (addition.h), each of which is
/// recorded behind the layer that it is at.

/// The parameters of a linear layer by name; an empty bias is none. Transposed weights are [in, out].
struct LinearNames {
  std::string weight, bias;
  bool transposed = false;
  bool joins = false;  ///< TapeEntry::joins
};

/// x [rows, in] through the layer: [rows, out]. Throws InvalidArgument where the widths do not fit.
at::Tensor linear(const ParameterSet& theta, const LinearNames& names, const at::Tensor& x, Tape* tape);

/// x [B, in] times the transpose of LAYER.weight [out, in], plus LAYER.bias [out] where theta has it: [B, out]. Throws
/// InvalidArgument where the widths do not fit.
at::Tensor linear(const ParameterSet& theta, std::string_view layer, const at::Tensor& x, Tape* tape);

/// x [B, in, H, W] filtered by LAYER.weight [out, in, k, k], zero-padded, plus LAYER.bias where theta has it: [B, out,
/// H', W'].
at::Tensor convolution(const ParameterSet& theta, std::string_view layer, const at::Tensor& x, std::int64_t stride,
                       std::int64_t padding, Tape* tape);

/// Rows of `weight` [count, width], or columns of a transposed one [width, count], for ids [rows] int64: [rows, width].
at::Tensor embedding(const ParameterSet& theta, const std::string& weight, const at::Tensor& ids, Tape* tape,
                     bool transposed = false);

/// x [rows, width] times `weight`, of width entries, plus `bias`; an empty name is none. x may have other axes behind
/// the second, [B, width, H, W]: their places are rows then.
at::Tensor scaled(const ParameterSet& theta, const std::string& weight, const std::string& bias, const at::Tensor& x,
                  Tape* tape);

/// Each row of x [rows, width] less its mean, over its standard deviation, times LAYER.weight, plus LAYER.bias. J. Ba,
/// J. Kiros and G. Hinton, "Layer Normalization", 2016. Where a DerivativeOrder of 3 or more
/// is in scope it is made of pieces: torch's own kernel, used otherwise, has a wrong third derivative.
at::Tensor layer_norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, double epsilon,
                      Tape* tape);
/// Each row over its root mean square, times LAYER.weight + offset. B. Zhang and R. Sennrich, NeurIPS 2019.
at::Tensor rms_norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, double epsilon,
                    Tape* tape, double offset = 0);

/// c tanh(x / c); x where c is 0.
at::Tensor softcapped(const at::Tensor& x, double c);

/// log p - log(1 - p) of each row's class: output [rows, C], classes [rows] int64, p = softmax(output). The others'
/// log-sum-exp stands for 1 - p, which is no difference of nearly equal numbers.
at::Tensor class_log_odds(const at::Tensor& output, const at::Tensor& classes);

/// What is made of products of queries and keys before their softmax.
struct AttentionLogits {
  AttentionLogits(double scale_by) : scale(scale_by) {}  // NOLINT(google-explicit-constructor): most have no more
  double scale = 1;
  double softcap = 0;     ///< Of softcapped().
  at::Tensor slopes;      ///< [H]: then the slope of the head times the key's place is added. O. Press, N. Smith and
                          ///< M. Lewis, "Train Short, Test Long", ICLR 2022. Undefined: nothing is.
  at::Tensor key_places;  ///< [R or 1, S], with slopes.
};

/// softmax(logits + mask) v over the last two dimensions of q [R, H, T, D] and k, v [R, G, S, D], the logits made of q
/// k' as `how` says, heads sharing keys where G < H. `allowed` [R or 1, 1, T, S] is what each query may look at;
/// undefined: everything, or, causal, the keys up to it (T = S). Softmax in float32 at least. A. Vaswani et al.,
/// "Attention Is All You Need", NeurIPS 2017.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& allowed,
                     bool causal, const AttentionLogits& how);
/// The attention called `module`, which the tape is told of, with the prefix that theta's additions have there: one
/// softmax over [its keys, k], of which every query sees all of the prefix's, whatever `allowed` says of k.
at::Tensor attention(const ParameterSet& theta, const std::string& module, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, const at::Tensor& allowed, bool causal, const AttentionLogits& how,
                     Tape* tape);

/// How often what is computed in a scope will be differentiated: ops choose their fastest form that allows it. Two
/// where nothing is said; a derivative beyond what was promised throws, or for layer_norm is wrong.
class DerivativeOrder {
 public:
  explicit DerivativeOrder(int order);
  ~DerivativeOrder();
  DerivativeOrder(const DerivativeOrder&) = delete;
  DerivativeOrder& operator=(const DerivativeOrder&) = delete;
  static int current();

 private:
  int before_;
};

/// The words that models offer; gelu is the exact one, x Phi(x).
inline constexpr std::string_view kActivations = "tanh|relu|gelu";
/// Knows also gelu-tanh, its approximation by a tanh, bloom-gelu, which rounds its constant, silu (swish) and
/// quick-gelu, x sigmoid(1.702 x).
at::Tensor activation(std::string_view name, const at::Tensor& x);

/// 2 x 2 means ("avg") or maxima ("max") of x [B, C, H, W]; an odd last row or column is dropped: [B, C, H/2, W/2].
inline constexpr std::string_view kPools = "max|avg";
at::Tensor pool(std::string_view name, const at::Tensor& x);

/// The batch's inputs in theta's dtype.
at::Tensor inputs_like(const ParameterSet& theta, const at::Tensor& inputs);

/// Adds LAYER.weight of `shape` ([out, in] or [out, in, k, k]) and a zero LAYER.bias to `theta`, float64. Weights are
/// normal with variance 2 / fan-in before relu and gelu (K. He et al., ICCV 2015), and 2 / (fan-in + fan-out) before
/// tanh or, with an empty name, no activation (Glorot and Bengio, AISTATS 2010). A layer's numbers depend on `random`
/// and its name alone.
void add_layer(ParameterSet& theta, const std::string& layer, at::IntArrayRef shape, std::string_view activation,
               const Random& random);

}  // namespace whence
