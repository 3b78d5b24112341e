#pragma once
// What a transformer computes, as a description of it says: tokens to the residual stream, and that to a head's
// outputs.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/data/batch.h"
#include "whence/models/detail/attention.h"
#include "whence/models/detail/prompted.h"
#include "whence/models/detail/transformer_config.h"
#include "whence/models/head.h"
#include "whence/models/language_model.h"
#include "whence/models/tape.h"

namespace whence::detail {

/// What a pass is to keep of what it computes, and what it goes on from.
struct Watch {
  std::vector<std::int64_t> layers = {};
  bool to_the_end = false;                        // else the pass stops after the last of these layers
  std::map<std::int64_t, at::Tensor> after = {};  // the residual stream after them: [R T, width]
  const Continuation* continuation = nullptr;
  TensorList attention = {};  // of each block [A, S]
  KeyValueCache cache = {};
};

/// Of a description, which has to outlive it, and what the stages' heads are called. Activations are rows, one a token:
/// [R T, width]; only attention sees the batch's shape.
class TransformerPass {
 public:
  TransformerPass(const TransformerConfig& config, Head head) : config_(config), head_(std::move(head)) {}

  /// Of the prompt in theta; 0 where it has none.
  std::int64_t prompt_length(const ParameterSet& theta) const;
  /// The batch as blocks see it. Throws InvalidArgument where it has no texts.
  Prompted behind_prompt(const ParameterSet& theta, const Batch& batch) const;
  /// Throws InvalidArgument where the last of so many tokens, `of_tuning` of them a tuning's, would have no place.
  void check_length(std::int64_t tokens, std::int64_t of_tuning) const;

  /// What every token that blocks see carries after the last block that is needed, [R T', width].
  at::Tensor residual_stream(const ParameterSet& theta, Prompted shown, Tape* tape, Watch* watch) const;

  /// The module of the layer that gives classes.
  std::string classifier() const { return head_.qualified(config_.names.classifier); }
  /// Of the residual stream x, read at one place of each example or, in mean_pooling, over all of `tokens`: [B,
  /// classes].
  at::Tensor class_outputs(const ParameterSet& theta, const at::Tensor& x, const at::Tensor& places,
                           const RowMap& tokens, Tape* tape) const;
  /// Of any rows of it: [rows, vocabulary].
  at::Tensor vocabulary_outputs(const ParameterSet& theta, at::Tensor x, Tape* tape, const RowMap& rows) const;

 private:
  std::string base(const std::string& name) const { return config_.names.base(name); }
  std::string block(std::int64_t layer, const std::string& name) const { return config_.names.in_block(layer, name); }
  std::string token_weight() const { return base(config_.names.tokens) + ".weight"; }
  std::string prompt() const;
  at::Tensor norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, Tape* tape) const;
  /// x itself where the block has no norm of that name.
  at::Tensor norm_in_block(const ParameterSet& theta, std::int64_t layer, const std::string& name, const at::Tensor& x,
                           Tape* tape) const;
  /// A linear layer of a block; whether its output joins the residual stream.
  at::Tensor through(const ParameterSet& theta, const std::string& layer, const at::Tensor& x, Tape* tape,
                     bool joins = false) const;
  /// The embedded tokens, each text's behind the prompt: [R T', width].
  at::Tensor embed_tokens(const ParameterSet& theta, const Prompted& seen, Tape* tape) const;
  at::Tensor embed(const ParameterSet& theta, const Prompted& seen, Tape* tape) const;
  at::Tensor attend(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x, const Batch& batch,
                    const Look& look, Tape* tape, Watch* watch) const;
  /// Queries or keys [R T, heads * width] behind the norm called `name` in its block.
  at::Tensor normed_heads(const ParameterSet& theta, std::int64_t layer, const std::string& name, const at::Tensor& x,
                          Tape* tape) const;
  at::Tensor feed(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x, Tape* tape) const;
  /// The mlp of a sparse block: each token's chosen experts, each of which sees the rows of its tokens alone.
  at::Tensor feed_experts(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x, Tape* tape) const;
  /// Of each block.
  std::vector<Look> looks(const ParameterSet& theta, const TokenLayout& text, const TokenLayout& given,
                          const Continuation* continuation) const;
  at::Tensor final_norm(const ParameterSet& theta, const at::Tensor& x, Tape* tape) const;

  const TransformerConfig& config_;
  Head head_;
};

}  // namespace whence::detail
