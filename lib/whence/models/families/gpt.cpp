// GPT-2, GPT-NeoX, OPT and BLOOM.
#include "whence/models/detail/families.h"

namespace whence::detail {

TransformerConfig read_gpt2(const ConfigFile& config) {
  TransformerConfig out;
  out.names = {.prefix = "transformer.",
               .tokens = "wte",
               .positions = "wpe",
               .block = "h.{}.",
               .attention_norm = "ln_1",
               .mlp_norm = "ln_2",
               .final_norm = "ln_f",
               .query_key_value = "attn.c_attn",
               .attention_out = "attn.c_proj",
               .mlp_in = "mlp.c_fc",
               .mlp_out = "mlp.c_proj",
               .head = "lm_head",
               .classifier = "score"};
  out.width = config.count("n_embd");
  out.layers = blocks_of(config, "n_layer");
  out.heads = config.count("n_head");
  out.context = config.count("n_positions");
  out.inner = config.count("n_inner", 4 * out.width);
  out.activation = activation_of(config, "activation_function", "gelu_new");
  out.epsilon = config.number("layer_norm_epsilon", 1e-5);
  out.tied = config.flag("tie_word_embeddings", true);
  out.transposed = true;
  out.fused = FusedOrder::kBlocks;
  out.scale_attention = config.flag("scale_attn_weights", true);
  out.scale_by_layer = config.flag("scale_attn_by_inverse_layer_idx", false);
  out.architecture_of_tokens = "GPT2LMHeadModel";
  out.architecture_of_classes = "GPT2ForSequenceClassification";
  return out;
}

TransformerConfig read_gpt_neox(const ConfigFile& config) {
  TransformerConfig out;
  out.names = {.prefix = "gpt_neox.",
               .tokens = "embed_in",
               .block = "layers.{}.",
               .attention_norm = "input_layernorm",
               .mlp_norm = "post_attention_layernorm",
               .final_norm = "final_layer_norm",
               .query_key_value = "attention.query_key_value",
               .attention_out = "attention.dense",
               .mlp_in = "mlp.dense_h_to_4h",
               .mlp_out = "mlp.dense_4h_to_h",
               .head = "embed_out",
               .classifier = "score"};
  read_sizes(config, out);
  out.context = config.count("max_position_embeddings");
  out.activation = activation_of(config, "hidden_act", "gelu");
  out.epsilon = config.number("layer_norm_eps", 1e-5);
  out.tied = config.flag("tie_word_embeddings", false);
  out.parallel = config.flag("use_parallel_residual", true);
  out.fused = FusedOrder::kHeads;
  out.query_bias = out.attention_out_bias = config.flag("attention_bias", true);
  out.rotary = read_rotary(config, out.width / out.heads, out.context,
                           {.base = "rotary_emb_base",
                            .base_too = "rope_theta",
                            .part = config.has("rotary_pct") ? "rotary_pct" : "partial_rotary_factor",
                            .part_if_absent = 0.25});
  out.architecture_of_tokens = "GPTNeoXForCausalLM";
  out.architecture_of_classes = "GPTNeoXForSequenceClassification";
  return out;
}

/// S. Zhang et al., "OPT: Open Pre-trained Transformer Language Models", 2022.
TransformerConfig read_opt(const ConfigFile& config) {
  TransformerConfig out;
  out.names = {.prefix = "model.decoder.",
               .tokens = "embed_tokens",
               .positions = "embed_positions",
               .block = "layers.{}.",
               .attention_norm = "self_attn_layer_norm",
               .mlp_norm = "final_layer_norm",
               .query = "self_attn.q_proj",
               .key = "self_attn.k_proj",
               .value = "self_attn.v_proj",
               .attention_out = "self_attn.out_proj",
               .mlp_in = "fc1",
               .mlp_out = "fc2",
               .head = "lm_head",
               .classifier = "score"};
  out.width = config.count("hidden_size");
  out.layers = blocks_of(config, "num_hidden_layers");
  out.heads = config.count("num_attention_heads");
  out.inner = config.count("ffn_dim");
  out.context = config.count("max_position_embeddings");
  out.position_offset = 2;
  out.embedding_width = config.count("word_embed_proj_dim", out.width);
  if (out.embedding_width != out.width) {
    out.names.into_width = "project_in";
    out.names.out_of_width = "project_out";
    out.into_width_bias = false;
  }
  out.post_norm = !config.flag("do_layer_norm_before", true);
  if (!out.post_norm && !config.flag("_remove_final_layer_norm", false)) {
    out.names.final_norm = "final_layer_norm";
  }
  config.expect("layer_norm_elementwise_affine", config.flag("layer_norm_elementwise_affine", true), "true");
  out.query_bias = out.attention_out_bias = out.mlp_bias = config.flag("enable_bias", true);
  out.activation = activation_of(config, "activation_function", "relu");
  out.tied = config.flag("tie_word_embeddings", true);
  out.initial_deviation = config.number("init_std", 0.02);
  out.architecture_of_tokens = "OPTForCausalLM";
  out.architecture_of_classes = "OPTForSequenceClassification";
  return out;
}

/// BigScience, "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model", 2022.
TransformerConfig read_bloom(const ConfigFile& config) {
  TransformerConfig out;
  out.names = {.prefix = "transformer.",
               .tokens = "word_embeddings",
               .embedding_norm = "word_embeddings_layernorm",
               .block = "h.{}.",
               .attention_norm = "input_layernorm",
               .mlp_norm = "post_attention_layernorm",
               .final_norm = "ln_f",
               .query_key_value = "self_attention.query_key_value",
               .attention_out = "self_attention.dense",
               .mlp_in = "mlp.dense_h_to_4h",
               .mlp_out = "mlp.dense_4h_to_h",
               .head = "lm_head",
               .classifier = "score"};
  out.width = config.count("hidden_size");
  out.layers = blocks_of(config, "n_layer");
  out.heads = config.count("n_head");
  out.inner = 4 * out.width;
  constexpr std::int64_t kTrainedOn = 2048;  // slopes go on for ever, the texts that BLOOM was trained on did not
  out.context = config.count("seq_length", kTrainedOn);
  config.expect("apply_residual_connection_post_layernorm",
                !config.flag("apply_residual_connection_post_layernorm", false), "false");
  out.activation = "bloom-gelu";
  out.epsilon = config.number("layer_norm_epsilon", 1e-5);
  out.tied = config.flag("tie_word_embeddings", true);
  out.fused = FusedOrder::kHeads;
  out.alibi = true;
  out.architecture_of_tokens = "BloomForCausalLM";
  out.architecture_of_classes = "BloomForSequenceClassification";
  return out;
}

}  // namespace whence::detail
