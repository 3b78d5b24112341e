// Llama and the families that are it with something else: Mistral, Qwen2, Qwen3, OLMo-2, Phi-3, Mixtral, Qwen3-MoE.
#include <fmt/format.h>

#include <algorithm>

#include "whence/models/detail/families.h"

namespace whence::detail {
namespace {

/// Blocks of Mistral, Mixtral and Phi-3 all look as far back; of Qwen2 and Qwen3 those from max_window_layers on.
std::vector<std::int64_t> llama_windows(const ConfigFile& config, const std::string& family, std::int64_t layers) {
  constexpr std::int64_t kIfAbsent = 4096;
  const auto all = [&](std::int64_t window) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(layers), window);
  };
  if (family == "mistral") {
    return all(sliding_window_of(config, kIfAbsent));
  }
  if (family == "mixtral" || family == "phi3") {
    return all(sliding_window_of(config, 0));
  }
  const bool slides =
      (family == "qwen2" || family == "qwen3" || family == "qwen3_moe") && config.flag("use_sliding_window", false);
  const auto window = slides ? sliding_window_of(config, kIfAbsent) : 0;
  if (family == "qwen3_moe") {
    return all(window);
  }
  if (family != "qwen2" && family != "qwen3") {
    return all(0);
  }
  if (config.has("layer_types")) {
    return windows_by_type(
        config, layers, window, [](std::int64_t, std::int64_t) { return true; }, 0);
  }
  auto out = all(0);
  const auto first = config.number("max_window_layers", 28);
  for (std::size_t l = 0; l < out.size(); ++l) {
    out[l] = static_cast<double>(l) >= first ? window : 0;
  }
  return out;
}

struct LlamaDefaults {
  std::string name;            ///< As transformers' classes begin.
  std::int64_t key_heads = 0;  ///< 0: one for each head.
  std::int64_t head_width = 0;
  double epsilon = 1e-6;
  RotaryKeys rotary = {};
};

TransformerConfig read_like_llama(const ConfigFile& config, const LlamaDefaults& defaults) {
  TransformerConfig out;
  out.names = llama_names();
  const auto family = config.text("model_type", "");
  read_sizes(config, out);
  out.key_heads = key_heads_of(config, out.heads, defaults.key_heads > 0 ? defaults.key_heads : out.heads);
  out.head_width = config.count("head_dim", defaults.head_width > 0 ? defaults.head_width : out.width / out.heads);
  out.context = config.count("max_position_embeddings");
  out.activation = activation_of(config, "hidden_act", "silu");
  out.epsilon = config.number("rms_norm_eps", defaults.epsilon);
  out.tied = config.flag("tie_word_embeddings", false);
  out.rms = true;
  out.query_bias = out.attention_out_bias = out.mlp_bias = false;
  out.rotary = read_rotary(config, out.head_width, out.context, defaults.rotary);
  out.windows = llama_windows(config, family, out.layers);
  out.architecture_of_tokens = defaults.name + "ForCausalLM";
  out.architecture_of_classes = defaults.name + "ForSequenceClassification";
  return out;
}

void norm_queries(TransformerConfig& out, QueryNorm how) {
  out.query_norm = how;
  out.names.query_norm = "self_attn.q_norm";
  out.names.key_norm = "self_attn.k_norm";
}

/// num_local_experts and num_experts_per_tok.
void read_experts(const ConfigFile& config, TransformerConfig& out) {
  out.experts.count = config.count("num_local_experts");
  out.experts.chosen = config.count("num_experts_per_tok");
  constexpr std::int64_t kMost = 10'000;
  config.expect("num_local_experts", out.experts.count <= kMost, fmt::format("at most {}", kMost));
  config.expect("num_experts_per_tok", out.experts.chosen <= out.experts.count,
                fmt::format("at most the {} experts", out.experts.count));
  out.experts.blocks.assign(static_cast<std::size_t>(out.layers), true);
}

}  // namespace

FamilyNames llama_names() {
  return {.prefix = "model.",
          .tokens = "embed_tokens",
          .block = "layers.{}.",
          .attention_norm = "input_layernorm",
          .mlp_norm = "post_attention_layernorm",
          .final_norm = "norm",
          .query = "self_attn.q_proj",
          .key = "self_attn.k_proj",
          .value = "self_attn.v_proj",
          .attention_out = "self_attn.o_proj",
          .mlp_in = "mlp.up_proj",
          .mlp_gate = "mlp.gate_proj",
          .mlp_out = "mlp.down_proj",
          .head = "lm_head",
          .classifier = "score"};
}

TransformerConfig read_llama(const ConfigFile& config) {
  const auto family = config.text("model_type", "");
  if (family == "mistral") {
    return read_like_llama(config, {"Mistral", 8});
  }
  if (family == "qwen2") {
    auto out = read_like_llama(config, {"Qwen2", 32});
    out.query_bias = true;
    return out;
  }
  if (family == "qwen3") {  // Qwen Team, "Qwen3 Technical Report", 2025
    auto out = read_like_llama(config, {"Qwen3", 32, 128});
    out.query_bias = out.attention_out_bias = config.flag("attention_bias", false);
    norm_queries(out, QueryNorm::kHeads);
    return out;
  }
  auto out = read_like_llama(config, {"Llama"});
  out.query_bias = out.attention_out_bias = config.flag("attention_bias", false);
  out.mlp_bias = config.flag("mlp_bias", false);
  return out;
}

/// OLMo Team, "2 OLMo 2 Furious", 2025: norms behind attention and mlp, before the sums, and of queries and keys whole.
TransformerConfig read_olmo2(const ConfigFile& config) {
  auto out = read_like_llama(config, {"Olmo2", 0, 0, 1e-5});
  out.query_bias = out.attention_out_bias = config.flag("attention_bias", false);
  out.names.attention_norm = out.names.mlp_norm = "";
  out.names.attention_post_norm = "post_attention_layernorm";
  out.names.mlp_post_norm = "post_feedforward_layernorm";
  norm_queries(out, QueryNorm::kWhole);
  return out;
}

/// M. Abdin et al., "Phi-3 Technical Report", 2024.
TransformerConfig read_phi3(const ConfigFile& config) {
  auto out = read_like_llama(config, {"Phi3", 0, 0, 1e-5, {.part = "partial_rotary_factor"}});
  out.fused = FusedOrder::kBlocks;
  out.names.query = out.names.key = out.names.value = "";
  out.names.query_key_value = "self_attn.qkv_proj";
  out.names.mlp_in = out.names.mlp_gate = "";
  out.names.mlp_gate_in = "mlp.gate_up_proj";
  return out;
}

/// A. Jiang et al., "Mixtral of Experts", 2024.
TransformerConfig read_mixtral(const ConfigFile& config) {
  auto out = read_like_llama(config, {"Mixtral", 8, 0, 1e-5, {.base_if_absent = 1e6}});
  read_experts(config, out);
  out.experts.inner = out.inner;
  out.experts.shares = true;
  out.names.router = "block_sparse_moe.gate";
  out.names.expert = "block_sparse_moe.experts.{}.";
  out.names.expert_gate = "w1";
  out.names.expert_out = "w2";
  out.names.expert_in = "w3";
  return out;
}

TransformerConfig read_qwen3_moe(const ConfigFile& config) {
  auto out = read_like_llama(config, {"Qwen3Moe", 4});
  out.query_bias = out.attention_out_bias = config.flag("attention_bias", false);
  norm_queries(out, QueryNorm::kHeads);
  read_experts(config, out);
  out.experts.inner = config.count("moe_intermediate_size");
  out.experts.shares = config.flag("norm_topk_prob", false);
  const auto every = config.count("decoder_sparse_step", 1);
  std::set<std::int64_t> dense;
  if (config.has("mlp_only_layers")) {
    const auto& list = config.values()["mlp_only_layers"];
    config.expect(
        "mlp_only_layers",
        list.is_array() && std::all_of(list.begin(), list.end(), [](const auto& l) { return l.is_number_integer(); }),
        "a list of blocks");
    for (const auto& block : list) {
      dense.insert(block.get<std::int64_t>());
    }
  }
  for (std::int64_t l = 0; l < out.layers; ++l) {
    out.experts.blocks[static_cast<std::size_t>(l)] = dense.count(l) == 0 && (l + 1) % every == 0;
  }
  out.names.router = "mlp.gate";
  out.names.expert = "mlp.experts.{}.";
  out.names.expert_gate = "gate_proj";
  out.names.expert_out = "down_proj";
  out.names.expert_in = "up_proj";
  return out;
}

}  // namespace whence::detail
