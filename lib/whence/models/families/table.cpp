// Every family: its model_type, its reader, and the keys of its config.json that decide something.
#include <algorithm>

#include "whence/models/detail/families.h"

namespace whence::detail {
namespace {

ConfigKeys joined(std::initializer_list<ConfigKeys> parts) {
  ConfigKeys out;
  for (const auto& part : parts) {
    out.insert(part.begin(), part.end());
  }
  return out;
}

std::vector<Family> make_families() {
  const ConfigKeys rotary = {"rope_theta", "rope_scaling", "rope_parameters"};
  const ConfigKeys blocks = {"hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"};
  const ConfigKeys sizes = joined({blocks, {"intermediate_size", "hidden_act"}});
  const ConfigKeys grouped = {"num_key_value_heads", "head_dim", "rms_norm_eps", "pad_token_id"};
  const ConfigKeys llama = joined({sizes, rotary, grouped});
  const ConfigKeys sliding = {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"};
  const ConfigKeys bert = joined({sizes, {"layer_norm_eps", "type_vocab_size"}});
  const ConfigKeys gemma =
      joined({blocks,
              rotary,
              grouped,
              {"intermediate_size", "hidden_activation", "attention_bias", "query_pre_attn_scalar", "sliding_window",
               "layer_types", "final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention"}});
  const ConfigKeys gemma_without = {"hidden_act", "cache_implementation"};
  const ConfigKeys router_without = {"output_router_logits", "router_aux_loss_coef", "router_jitter_noise"};
  return {
      {"bert", read_bert, bert, {}, {}, /*causal=*/false},
      {"bloom",
       read_bloom,
       {"hidden_size", "n_layer", "n_head", "layer_norm_epsilon", "seq_length", "pad_token_id",
        "apply_residual_connection_post_layernorm"},
       {"slow_but_exact", "attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi",
        "skip_bias_add", "skip_bias_add_qkv", "n_inner"},
       {{"num_hidden_layers", "n_layer"}, {"num_attention_heads", "n_head"}, {"n_embed", "hidden_size"}}},
      {"distilbert",
       read_distilbert,
       {"dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings", "activation"},
       {"dropout", "qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds"},
       {{"hidden_size", "dim"}, {"num_hidden_layers", "n_layers"}, {"num_attention_heads", "n_heads"}},
       /*causal=*/false},
      {"electra", read_electra, joined({bert, {"embedding_size"}}), {}, {}, /*causal=*/false},
      {"gemma2", read_gemma2, gemma, gemma_without, {}, true, /*pad_if_absent=*/0},
      {"gemma3_text",
       read_gemma3,
       joined({gemma, {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"}}),
       gemma_without,
       {},
       true,
       /*pad_if_absent=*/0},
      {"gpt2",
       read_gpt2,
       {"n_embd", "n_layer", "n_head", "n_positions", "n_inner", "activation_function", "layer_norm_epsilon",
        "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "pad_token_id"},
       {},
       {{"hidden_size", "n_embd"},
        {"num_hidden_layers", "n_layer"},
        {"num_attention_heads", "n_head"},
        {"max_position_embeddings", "n_positions"}}},
      {"gpt_neox", read_gpt_neox,
       joined({sizes,
               rotary,
               {"layer_norm_eps", "use_parallel_residual", "attention_bias", "rotary_pct", "rotary_emb_base",
                "partial_rotary_factor", "pad_token_id"}})},
      {"llama", read_llama, joined({llama, {"attention_bias", "mlp_bias"}})},
      {"mistral", read_llama, joined({llama, {"sliding_window"}})},
      {"mixtral",
       read_mixtral,
       joined({llama, {"sliding_window", "num_local_experts", "num_experts_per_tok"}}),
       router_without,
       {{"num_experts", "num_local_experts"}}},
      {"modernbert",
       read_modernbert,
       joined({blocks,
               {"intermediate_size", "hidden_activation", "norm_eps", "norm_bias", "attention_bias", "mlp_bias",
                "decoder_bias", "classifier_bias", "classifier_activation", "classifier_pooling", "local_attention",
                "layer_types", "global_attn_every_n_layers", "global_rope_theta", "local_rope_theta", "rope_scaling",
                "rope_parameters"}}),
       {"rope_theta", "layer_norm_eps", "initializer_cutoff_factor", "embedding_dropout", "mlp_dropout",
        "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index", "reference_compile",
        "repad_logits_with_grad"},
       {},
       /*causal=*/false},
      {"olmo2", read_olmo2, joined({llama, {"attention_bias"}}), {}, {}, true, /*pad_if_absent=*/1},
      {"opt",
       read_opt,
       joined({blocks,
               {"ffn_dim", "do_layer_norm_before", "_remove_final_layer_norm", "word_embed_proj_dim",
                "activation_function", "enable_bias", "layer_norm_elementwise_affine", "init_std", "pad_token_id"}}),
       {"dropout", "layerdrop"},
       {},
       true,
       /*pad_if_absent=*/1},
      {"phi3",
       read_phi3,
       joined({llama, {"sliding_window", "partial_rotary_factor", "original_max_position_embeddings"}}),
       {"resid_pdrop", "embd_pdrop"},
       {},
       true,
       /*pad_if_absent=*/32000},
      {"qwen2", read_llama, joined({llama, sliding})},
      {"qwen3", read_llama, joined({llama, sliding, {"attention_bias"}})},
      {"qwen3_moe",
       read_qwen3_moe,
       joined({llama,
               {"attention_bias", "use_sliding_window", "sliding_window", "num_local_experts", "num_experts_per_tok",
                "moe_intermediate_size", "decoder_sparse_step", "mlp_only_layers", "norm_topk_prob"}}),
       joined({router_without, {"max_window_layers"}}),
       {{"num_experts", "num_local_experts"}}},
      {"roberta", read_bert, joined({bert, {"pad_token_id"}}), {}, {}, /*causal=*/false},
  };
}

}  // namespace

const std::vector<Family>& families() {
  static const std::vector<Family> table = make_families();
  return table;
}

const Family* find_family(const std::string& type) {
  const auto& all = families();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Family& family) { return family.type == type; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace whence::detail
