#include "whence/models/detail/transformer_pass.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/core/error.h"
#include "whence/core/rounding.h"
#include "whence/models/addition.h"
#include "whence/models/interruptible.h"
#include "whence/models/ops.h"

namespace whence::detail {

std::string TransformerPass::prompt() const { return prompt_name(base(config_.names.tokens)); }

at::Tensor TransformerPass::norm(const ParameterSet& theta, const std::string& layer, const at::Tensor& x,
                                 Tape* tape) const {
  return config_.rms ? rms_norm(theta, layer, x, config_.epsilon, tape, config_.norm_offset)
                     : layer_norm(theta, layer, x, config_.epsilon, tape);
}

at::Tensor TransformerPass::norm_in_block(const ParameterSet& theta, std::int64_t layer, const std::string& name,
                                          const at::Tensor& x, Tape* tape) const {
  return name.empty() ? x : norm(theta, block(layer, name), x, tape);
}

at::Tensor TransformerPass::normed_heads(const ParameterSet& theta, std::int64_t layer, const std::string& name,
                                         const at::Tensor& x, Tape* tape) const {
  if (config_.query_norm != QueryNorm::kHeads) {
    return config_.query_norm == QueryNorm::kNone ? x : norm(theta, block(layer, name), x, tape);
  }
  RowMap tokens;
  if (tape != nullptr) {
    tokens = tape->rows;
    tape->rows = split_rows(tokens, x.size(1) / config_.head_width);
  }
  const auto out = norm(theta, block(layer, name), x.reshape({-1, config_.head_width}), tape).view_as(x);
  if (tape != nullptr) {
    tape->rows = std::move(tokens);
  }
  return out;
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
  const auto of_tokens = [&](const at::Tensor& ids) {
    const auto x = embedding(theta, token_weight(), ids, tape);
    return config_.embedding_scale == 1 ? x : x * config_.embedding_scale;
  };
  if (!seen.places.defined()) {
    return of_tokens(batch.inputs.flatten());
  }
  const auto tokens = seen.prompts.places.size(1);
  const auto given = batch.inputs.flatten().index_select(0, seen.places).clamp_min(0);
  if (tape != nullptr) {
    tape->rows = seen.texts;
  }
  const auto x = of_tokens(given);
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
  // OPT widens what its tokens are before places are added, ELECTRA the whole
  const bool projects = !n.into_width.empty(), projects_all = projects && !n.embedding_norm.empty();
  auto x = embed_tokens(theta, seen, tape);
  x = projects && !projects_all ? linear(theta, base(n.into_width), x, tape) : x;
  if (!n.positions.empty()) {
    const auto positions = text.positions.flatten() + config_.position_offset;
    x = x + embedding(theta, base(n.positions) + ".weight", positions, tape);
  }
  if (!n.types.empty()) {
    const auto types = text.types.defined() ? text.types.flatten() : at::zeros_like(batch.inputs).flatten();
    x = x + embedding(theta, base(n.types) + ".weight", types, tape);
  }
  x = n.embedding_norm.empty() ? x : norm(theta, base(n.embedding_norm), x, tape);
  return projects_all ? linear(theta, base(n.into_width), x, tape) : x;
}

at::Tensor TransformerPass::attend(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x,
                                   const Batch& batch, const Look& look, Tape* tape, Watch* watch) const {
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
      const auto keys = config_.key_heads * width;
      const auto parts = through(theta, block(layer, n.query_key_value), x, tape)
                             .split_with_sizes({config_.heads * width, keys, keys}, 1);
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
  q = normed_heads(theta, layer, n.query_norm, q, tape);
  k = normed_heads(theta, layer, n.key_norm, k, tape);
  const auto by_head = [&](const at::Tensor& y) { return y.reshape({rows, length, -1, width}).transpose(1, 2); };
  q = by_head(q), k = by_head(k), v = by_head(v);
  if (look.turn.cosine.defined()) {
    q = rotate(q, look.turn);
    k = rotate(k, look.turn);
  }
  if (watch != nullptr && watch->continuation != nullptr) {
    go_on_from(*watch->continuation, layer, k, v);
    if (watch->continuation->attention_at.defined()) {
      watch->attention.push_back(attention_weights(q, k, look.mask, look.logits, watch->continuation->attention_at));
    }
    if (watch->continuation->keep) {
      watch->cache.keys.push_back(k);
      watch->cache.values.push_back(v);
    }
  }
  const auto& part = config_.fused == FusedOrder::kNone ? n.query : n.query_key_value;
  const auto module = block(layer, part.substr(0, part.rfind('.')));
  const auto seen = attention(theta, module, q, k, v, look.mask, config_.causal, look.logits, tape);
  return through(theta, block(layer, n.attention_out), seen.transpose(1, 2).reshape({rows * length, -1}), tape, true);
}

at::Tensor TransformerPass::feed(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x, Tape* tape) const {
  const auto& n = config_.names;
  if (config_.is_sparse(layer)) {
    return feed_experts(theta, layer, x, tape);
  }
  at::Tensor inner;
  if (!n.mlp_gate_in.empty()) {
    const auto parts = through(theta, block(layer, n.mlp_gate_in), x, tape).chunk(2, 1);
    inner = activation(config_.activation, parts[0]) * parts[1];
  } else {
    inner = through(theta, block(layer, n.mlp_in), x, tape);
    inner = n.mlp_gate.empty()
                ? activation(config_.activation, inner)
                : activation(config_.activation, through(theta, block(layer, n.mlp_gate), x, tape)) * inner;
  }
  return through(theta, block(layer, n.mlp_out), inner, tape, true);
}

at::Tensor TransformerPass::feed_experts(const ParameterSet& theta, std::int64_t layer, const at::Tensor& x,
                                         Tape* tape) const {
  const auto& n = config_.names;
  const auto& experts = config_.experts;
  const auto logits = through(theta, block(layer, n.router), x, tape);
  const auto likely = at::softmax(widened(logits), 1);  // [rows, experts]
  const auto chosen = std::get<1>(likely.detach().topk(experts.chosen, 1));
  auto shares = likely.gather(1, chosen);
  shares = (experts.shares ? shares / shares.sum(1, /*keepdim=*/true) : shares).to(x.scalar_type());
  const auto tokens = tape != nullptr ? tape->rows : RowMap{};
  auto out = at::zeros_like(x);
  for (std::int64_t e = 0; e < experts.count; ++e) {
    const auto is_chosen = chosen.eq(e);  // [rows, chosen]
    const auto rows = is_chosen.any(1).nonzero().squeeze(1);
    if (rows.numel() == 0 && tape == nullptr && !at::GradMode::is_enabled()) {
      continue;  // else its gradient, of no rows, is zero
    }
    if (tape != nullptr) {
      tape->rows = some_rows(tokens, rows);
    }
    const auto seen = x.index_select(0, rows);
    const auto layer_of = [&](const std::string& name) { return n.in_expert(layer, e, name); };
    const auto inner = activation(config_.activation, through(theta, layer_of(n.expert_gate), seen, tape)) *
                       through(theta, layer_of(n.expert_in), seen, tape);
    const auto share = (shares * is_chosen).sum(1, /*keepdim=*/true).index_select(0, rows);
    out = out.index_add(0, rows, through(theta, layer_of(n.expert_out), inner, tape) * share);
  }
  if (tape != nullptr) {
    tape->rows = tokens;
  }
  return out;
}

std::vector<Look> TransformerPass::looks(const ParameterSet& theta, const TokenLayout& text, const TokenLayout& given,
                                         const Continuation* continuation) const {
  std::map<std::int64_t, at::Tensor> masks;  // of each window
  for (const auto window : config_.windows) {
    if (masks.count(window) == 0) {
      masks[window] = continuation != nullptr ? allowed_after(*continuation, given, window)
                                              : allowed(given, config_.causal, window);
    }
  }
  const auto options = theta.at(token_weight()).options().requires_grad(false);
  const auto turns = [&](const Rotary& rotary) {
    return rotary.width > 0 ? rotation(rotary, config_.context, text, options) : Rotation{};
  };
  const auto turn = turns(config_.rotary);
  const auto window_turn = config_.window_rotary.width > 0 ? turns(config_.window_rotary) : turn;
  const auto scalar = config_.query_scalar > 0 ? config_.query_scalar : static_cast<double>(config_.head_width);
  AttentionLogits logits = config_.scale_attention ? 1 / std::sqrt(scalar) : 1;
  logits.softcap = config_.attention_softcap;
  if (config_.alibi) {
    logits.slopes = alibi_slopes(config_.heads).to(options);
    logits.key_places = text.positions;
    if (continuation != nullptr && continuation->beginning != nullptr) {  // whose keys come first
      const auto before = continuation->beginning->size(), first = prefix_length(theta);
      const auto earlier = at::arange(first, first + before, text.positions.options());
      logits.key_places = at::cat({earlier.expand({text.positions.size(0), before}), text.positions}, 1);
    }
  }
  std::vector<Look> out;
  for (std::int64_t l = 0; l < config_.layers; ++l) {
    const auto window = config_.windows[static_cast<std::size_t>(l)];
    out.push_back({window > 0 ? window_turn : turn, masks.at(window), logits});
    out.back().logits.scale /= config_.scale_by_layer ? static_cast<double>(l + 1) : 1;
  }
  return out;
}

at::Tensor TransformerPass::residual_stream(const ParameterSet& theta, Prompted shown, Tape* tape, Watch* watch) const {
  const auto& n = config_.names;
  auto& batch = shown.batch;
  if (tape != nullptr) {
    tape->rows = batch.text->tokens;
  }
  const auto given = *batch.text;
  const auto prefix = prefix_length(theta);
  if (prefix > 0) {  // takes the first places
    batch.text->positions = batch.text->positions + prefix;
    batch.text->lengths = batch.text->lengths + prefix;
  }
  if (!n.positions.empty()) {
    check_length(batch.text->positions.max().item<std::int64_t>() + 1, prefix + prompt_length(theta));
  }
  const auto look = looks(theta, *batch.text, given, watch != nullptr ? watch->continuation : nullptr);
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
    const auto at_block = [&](const at::Tensor& y) {
      return attend(theta, l, y, batch, look[static_cast<std::size_t>(l)], tape, watch);
    };
    if (config_.post_norm) {
      x = norm(theta, block(l, n.attention_norm), x + at_block(x), tape);
      x = norm(theta, block(l, n.mlp_norm), x + feed(theta, l, x, tape), tape);
    } else {
      const auto first = l > 0 || config_.first_norm ? norm_in_block(theta, l, n.attention_norm, x, tape) : x;
      const auto seen = norm_in_block(theta, l, n.attention_post_norm, at_block(first), tape);
      const auto read = config_.parallel ? x : x + seen;
      const auto inner = feed(theta, l, norm_in_block(theta, l, n.mlp_norm, read, tape), tape);
      const auto fed = norm_in_block(theta, l, n.mlp_post_norm, inner, tape);
      x = config_.parallel ? x + seen + fed : read + fed;
    }
    keep(l + 1, interruptible(x));
  }
  return x;
}

at::Tensor TransformerPass::final_norm(const ParameterSet& theta, const at::Tensor& x, Tape* tape) const {
  const auto& n = config_.names;
  const auto out = n.final_norm.empty() ? x : norm(theta, base(n.final_norm), x, tape);
  return n.out_of_width.empty() ? out : linear(theta, base(n.out_of_width), out, tape);
}

at::Tensor TransformerPass::class_outputs(const ParameterSet& theta, const at::Tensor& stream, const at::Tensor& places,
                                          const RowMap& tokens, Tape* tape) const {
  const auto& n = config_.names;
  RowMap one_each;  // row
  one_each.origins = tokens.origins.defined() ? tokens.origins.index_select(0, places) : places;
  if (tape != nullptr) {
    tape->rows = config_.mean_pooling ? tokens : one_each;
  }
  auto x = final_norm(theta, config_.mean_pooling ? stream : stream.index_select(0, places), tape);
  if (config_.mean_pooling) {
    const auto real = tokens.places.ge(0).unsqueeze(2).to(x.scalar_type());
    const auto rows = x.index_select(0, tokens.places.clamp_min(0).flatten()).view({places.size(0), -1, x.size(1)});
    x = (rows * real).sum(1) / real.sum(1);
    if (tape != nullptr) {
      tape->rows = one_each;
    }
  }
  if (!n.class_dense.empty()) {
    x = activation(config_.class_activation, linear(theta, head_.qualified(n.class_dense), x, tape));
  }
  if (!n.class_norm.empty()) {
    x = norm(theta, head_.qualified(n.class_norm), x, tape);
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
    const auto& word = config_.head_activation.empty() ? config_.activation : config_.head_activation;
    x = norm(theta, n.head_norm, activation(word, linear(theta, n.head_dense, x, tape)), tape);
  }
  const auto out = linear(theta, {config_.tied ? token_weight() : n.head + ".weight", n.head_bias}, x, tape);
  return softcapped(out, config_.output_softcap);
}

}  // namespace whence::detail
