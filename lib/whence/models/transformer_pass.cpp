#include "whence/models/detail/transformer_pass.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"

namespace whence::detail {

std::string TransformerPass::prompt() const { return prompt_name(base(config_.names.tokens)); }

at::Tensor TransformerPass::norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x,
                                 Tape* tape) const {
  return config_.rms ? rms_norm(theta, layer, x, config_.epsilon, tape)
                     : layer_norm(theta, layer, x, config_.epsilon, tape);
}

at::Tensor TransformerPass::through(const ParameterSet& theta, const std::string& layer, const at::Tensor& x,
                                    Tape* tape, bool joins) const {
  const auto bias = layer + ".bias";
  return linear(theta, {layer + ".weight", theta.contains(bias) ? bias : "", config_.transposed, joins}, x, tape);
}

std::int64_t TransformerPass::prompt_length(const ParameterSet& theta) const {
  return theta.contains(prompt()) ? theta.at(prompt()).size(0) : 0;
}

Prompted TransformerPass::behind_prompt(const ParameterSet& theta, const Batch& batch) const {
  if (!batch.text) {
    throw InvalidArgument("transformer: expected a batch of texts");
  }
  return prompted(batch, prompt_length(theta));
}

void TransformerPass::check_length(std::int64_t tokens, std::int64_t of_tuning) const {
  if (tokens > config_.context) {
    const auto before = of_tuning > 0 ? fmt::format(" behind {} of a prefix or prompt", of_tuning) : "";
    throw InvalidArgument(fmt::format("transformer: a text of {} tokens{}, expected at most {}", tokens - of_tuning,
                                      before, config_.context - of_tuning));
  }
}

at::Tensor TransformerPass::embed_tokens(const ParameterSet& theta, const Prompted& seen, Tape* tape) const {
  const auto& batch = seen.batch;
  if (!seen.places.defined()) {
    return embedding(theta, token_weight(), batch.inputs.flatten(), tape);
  }
  const auto tokens = seen.prompts.places.size(1);
  const auto given = batch.inputs.flatten().index_select(0, seen.places).clamp_min(0);
  if (tape != nullptr) {
    tape->rows = seen.texts;
  }
  const auto x = embedding(theta, token_weight(), given, tape);
  if (tape != nullptr) {
    tape->rows = seen.prompts;
  }
  const auto ids = at::arange(tokens, given.options()).repeat({batch.size()});
  const auto prompts = embedding(theta, prompt(), ids, tape);
  if (tape != nullptr) {
    tape->rows = batch.text->tokens;
  }
  return at::cat({x, prompts, at::zeros({1, x.size(1)}, x.options().requires_grad(false))})
      .index_select(0, seen.sources);
}

at::Tensor TransformerPass::embed(const ParameterSet& theta, const Prompted& seen, Tape* tape) const {
  const auto& n = config_.names;
  const auto& batch = seen.batch;
  const auto& text = *batch.text;
  auto x = embed_tokens(theta, seen, tape);
  if (!n.positions.empty()) {
    const auto positions = text.positions.flatten() + config_.position_offset;
    x = x + embedding(theta, base(n.positions) + ".weight", positions, tape);
  }
  if (!n.types.empty()) {
    const auto types = text.types.defined() ? text.types.flatten() : at::zeros_like(batch.inputs).flatten();
    x = x + embedding(theta, base(n.types) + ".weight", types, tape);
  }
  return n.embedding_norm.empty() ? x : norm(theta, base(n.embedding_norm), x, tape);
}

at::Tensor TransformerPass::attend(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x,
                                   const Batch& batch, const Rotation& turn, const at::Tensor& mask, Tape* tape,
                                   Watch* watch) const {
  const auto& n = config_.names;
  const auto rows = batch.inputs.size(0), length = batch.inputs.size(1), width = config_.head_width;
  at::Tensor q, k, v;  // [R T, heads * width]
  switch (config_.fused) {
    case FusedOrder::kNone:
      q = through(theta, block(layer, n.query), x, tape);
      k = through(theta, block(layer, n.key), x, tape);
      v = through(theta, block(layer, n.value), x, tape);
      break;
    case FusedOrder::kBlocks: {
      const auto parts = through(theta, block(layer, n.query_key_value), x, tape).chunk(3, 1);
      q = parts[0], k = parts[1], v = parts[2];
      break;
    }
    case FusedOrder::kHeads: {
      const auto parts =
          through(theta, block(layer, n.query_key_value), x, tape).view({-1, config_.heads, 3, width}).unbind(2);
      q = parts[0], k = parts[1], v = parts[2];
      break;
    }
  }
  const auto by_head = [&](const at::Tensor& y) { return y.reshape({rows, length, -1, width}).transpose(1, 2); };
  q = by_head(q), k = by_head(k), v = by_head(v);
  if (turn.cosine.defined()) {
    q = rotate(q, turn);
    k = rotate(k, turn);
  }
  double scale = config_.scale_attention ? 1 / std::sqrt(static_cast<double>(width)) : 1;
  scale /= config_.scale_by_layer ? static_cast<double>(layer + 1) : 1;
  if (watch != nullptr && watch->continuation != nullptr) {
    go_on_from(*watch->continuation, layer, k, v);
    if (watch->continuation->attention_at.defined()) {
      watch->attention.push_back(attention_weights(q, k, mask, scale, watch->continuation->attention_at));
    }
    if (watch->continuation->keep) {
      watch->cache.keys.push_back(k);
      watch->cache.values.push_back(v);
    }
  }
  const auto& part = config_.fused == FusedOrder::kNone ? n.query : n.query_key_value;
  const auto module = block(layer, part.substr(0, part.rfind('.')));
  const auto seen = attention(theta, module, q, k, v, mask, config_.causal, scale, tape);
  return through(theta, block(layer, n.attention_out), seen.transpose(1, 2).reshape({rows * length, -1}), tape, true);
}

at::Tensor TransformerPass::feed(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x, Tape* tape) const {
  const auto& n = config_.names;
  auto inner = through(theta, block(layer, n.mlp_in), x, tape);
  if (n.mlp_gate.empty()) {
    inner = activation(config_.activation, inner);
  } else {
    inner = activation(config_.activation, through(theta, block(layer, n.mlp_gate), x, tape)) * inner;
  }
  return through(theta, block(layer, n.mlp_out), inner, tape, true);
}

at::Tensor TransformerPass::residual_stream(const ParameterSet& theta, Prompted shown, Tape* tape, Watch* watch) const {
  const auto& n = config_.names;
  auto& batch = shown.batch;
  if (tape != nullptr) {
    tape->rows = batch.text->tokens;
  }
  const auto* continuation = watch != nullptr ? watch->continuation : nullptr;
  std::map<std::int64_t, at::Tensor> masks;
  for (const auto window : config_.windows) {
    if (masks.count(window) == 0) {
      masks[window] = continuation != nullptr ? allowed_after(*continuation, *batch.text, window)
                                              : allowed(*batch.text, config_.causal, window);
    }
  }
  const auto prefix = prefix_length(theta);
  if (prefix > 0) {  // takes the first places
    batch.text->positions = batch.text->positions + prefix;
    batch.text->lengths = batch.text->lengths + prefix;
  }
  if (config_.rotary.width == 0) {
    check_length(batch.text->positions.max().item<std::int64_t>() + 1, prefix + prompt_length(theta));
  }
  const auto options = theta.at(token_weight()).options().requires_grad(false);
  const auto turn =
      config_.rotary.width > 0 ? rotation(config_.rotary, config_.context, *batch.text, options) : Rotation{};
  const auto keep = [&](std::int64_t layer, const at::Tensor& x) {
    if (watch != nullptr && std::find(watch->layers.begin(), watch->layers.end(), layer) != watch->layers.end()) {
      watch->after[layer] = x;
    }
  };
  const bool whole = watch == nullptr || watch->to_the_end || watch->layers.empty();
  const auto last = whole ? config_.layers : *std::max_element(watch->layers.begin(), watch->layers.end());
  auto x = embed(theta, shown, tape);
  keep(0, x);
  for (std::int64_t l = 0; l < last; ++l) {
    const auto& mask = masks.at(config_.windows[static_cast<std::size_t>(l)]);
    const auto attention_norm = block(l, n.attention_norm), mlp_norm = block(l, n.mlp_norm);
    if (config_.post_norm) {
      x = norm(theta, attention_norm, x + attend(theta, l, x, batch, turn, mask, tape, watch), tape);
      x = norm(theta, mlp_norm, x + feed(theta, l, x, tape), tape);
    } else {
      const auto seen = attend(theta, l, norm(theta, attention_norm, x, tape), batch, turn, mask, tape, watch);
      const auto read = config_.parallel ? x : x + seen;
      const auto fed = feed(theta, l, norm(theta, mlp_norm, read, tape), tape);
      x = config_.parallel ? x + seen + fed : read + fed;
    }
    keep(l + 1, x);
  }
  return x;
}

at::Tensor TransformerPass::final_norm(const ParameterSet& theta, const at::Tensor& x, Tape* tape) const {
  return config_.names.final_norm.empty() ? x : norm(theta, base(config_.names.final_norm), x, tape);
}

at::Tensor TransformerPass::class_outputs(const ParameterSet& theta, at::Tensor x, Tape* tape,
                                          const RowMap& rows) const {
  if (tape != nullptr) {
    tape->rows = rows;
  }
  x = final_norm(theta, x, tape);
  if (!config_.names.class_dense.empty()) {
    x = at::tanh(linear(theta, head_.qualified(config_.names.class_dense), x, tape));
  }
  return linear(theta, classifier(), x, tape);
}

at::Tensor TransformerPass::vocabulary_outputs(const ParameterSet& theta, at::Tensor x, Tape* tape,
                                               const RowMap& rows) const {
  const auto& n = config_.names;
  if (tape != nullptr) {
    tape->rows = rows;
  }
  x = final_norm(theta, x, tape);
  if (!n.head_dense.empty()) {
    // RoBERTa's head has its own, whatever hidden_act says
    x = activation(config_.family == "roberta" ? "gelu" : config_.activation, linear(theta, n.head_dense, x, tape));
    x = layer_norm(theta, n.head_norm, x, config_.epsilon, tape);
  }
  return linear(theta, {config_.tied ? token_weight() : n.head + ".weight", n.head_bias}, x, tape);
}

}  // namespace whence::detail
