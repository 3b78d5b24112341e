// Gemma 2 and 3: Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", 2024, and "Gemma 3
// Technical Report", 2025.
#include <cmath>

#include "whence/models/detail/families.h"

namespace whence::detail {
namespace {

TransformerConfig read_gemma(const ConfigFile& config) {
  TransformerConfig out;
  out.names = llama_names();
  out.names.mlp_norm = "pre_feedforward_layernorm";
  out.names.attention_post_norm = "post_attention_layernorm";
  out.names.mlp_post_norm = "post_feedforward_layernorm";
  read_sizes(config, out);
  constexpr std::int64_t kHeadWidth = 256, kKeyHeads = 4;
  out.key_heads = key_heads_of(config, out.heads, kKeyHeads);
  out.head_width = config.count("head_dim", kHeadWidth);
  out.context = config.count("max_position_embeddings");
  out.activation = activation_of(config, "hidden_activation", "gelu_pytorch_tanh");
  out.epsilon = config.number("rms_norm_eps", 1e-6);
  out.tied = config.flag("tie_word_embeddings", true);
  out.rms = true;
  out.norm_offset = 1;
  out.embedding_scale = std::sqrt(static_cast<double>(out.width));
  out.query_bias = out.attention_out_bias = config.flag("attention_bias", false);
  out.mlp_bias = false;
  out.query_scalar = config.number("query_pre_attn_scalar", 256);
  config.expect("query_pre_attn_scalar", out.query_scalar > 0, "a number > 0");
  config.expect("use_bidirectional_attention", !config.flag("use_bidirectional_attention", false), "false");
  return out;
}

/// Null is none.
double softcap_of(const ConfigFile& config, const char* key, double if_absent) {
  const auto cap = config.has(key) ? config.number(key, 0) : config.values().contains(key) ? 0 : if_absent;
  config.expect(key, cap >= 0 && (!config.has(key) || cap > 0), "a number > 0 or null");
  return cap;
}

}  // namespace

TransformerConfig read_gemma2(const ConfigFile& config) {
  auto out = read_gemma(config);
  out.attention_softcap = softcap_of(config, "attn_logit_softcapping", 50);
  out.output_softcap = softcap_of(config, "final_logit_softcapping", 30);
  out.rotary = read_rotary(config, out.head_width, out.context);
  out.windows = windows_by_type(
      config, out.layers, sliding_window_of(config, 4096),
      [](std::int64_t l, std::int64_t every) { return (l + 1) % every == 0; }, 2);
  out.architecture_of_tokens = "Gemma2ForCausalLM";
  out.architecture_of_classes = "Gemma2ForSequenceClassification";
  return out;
}

TransformerConfig read_gemma3(const ConfigFile& config) {
  auto out = read_gemma(config);
  config.expect("attn_logit_softcapping", !config.has("attn_logit_softcapping"), "null");
  out.output_softcap = softcap_of(config, "final_logit_softcapping", 0);
  out.query_norm = QueryNorm::kHeads;
  out.names.query_norm = "self_attn.q_norm";
  out.names.key_norm = "self_attn.k_norm";
  out.rotary = read_rotary(config, out.head_width, out.context, {.base_if_absent = 1e6, .layers = "full_attention"});
  out.window_rotary = read_rotary(config, out.head_width, out.context,
                                  {.base = "rope_local_base_freq", .layers = "sliding_attention", .scaled = false});
  const auto every = config.count("sliding_window_pattern", config.count("_sliding_window_pattern", 6));
  out.windows = windows_by_type(
      config, out.layers, sliding_window_of(config, 4096),
      [](std::int64_t l, std::int64_t n) { return (l + 1) % n == 0; }, every);
  out.architecture_of_tokens = "Gemma3ForCausalLM";
  out.architecture_of_classes = "Gemma3TextForSequenceClassification";
  return out;
}

}  // namespace whence::detail
