#include "whence/models/detail/transformer_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/models/detail/config_file.h"
#include "whence/models/detail/config_keys.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

std::string activation_of(const ConfigFile& config, const char* key, const std::string& otherwise) {
  static const std::map<std::string, std::string> known = {{"gelu", "gelu"},
                                                           {"gelu_new", "gelu-tanh"},
                                                           {"gelu_pytorch_tanh", "gelu-tanh"},
                                                           {"gelu_fast", "gelu-tanh"},
                                                           {"relu", "relu"},
                                                           {"silu", "silu"},
                                                           {"swish", "silu"},
                                                           {"tanh", "tanh"},
                                                           {"quick_gelu", "quick-gelu"},
                                                           {"gelu_python", "gelu"},
                                                           {"gelu_accurate", "gelu-tanh"},
                                                           {"gelu_python_tanh", "gelu-tanh"}};
  const auto word = config.text(key, otherwise);
  const auto found = known.find(word);
  if (found == known.end()) {
    std::vector<std::string> words;
    for (const auto& [name, ours] : known) {
      words.push_back(name);
    }
    config.fail(key, fmt::format("one of {}", fmt::join(words, ", ")));
  }
  return found->second;
}

/// Of so many blocks or classes names are made before any weight is looked at.
constexpr std::int64_t kMostBlocks = 10'000, kMostClasses = 1'000'000;

std::int64_t blocks_of(const ConfigFile& config, const char* key) {
  const auto blocks = config.count(key);
  config.expect(key, blocks <= kMostBlocks, fmt::format("at most {}", kMostBlocks));
  return blocks;
}

/// Not a token where null, absent or negative.
std::int64_t pad_token_of(const ConfigFile& config) {
  if (!config.has("pad_token_id")) {
    return -1;
  }
  config.expect("pad_token_id", config.values()["pad_token_id"].is_number_integer(), "a token's number or null");
  return std::max<std::int64_t>(config.values()["pad_token_id"].get<std::int64_t>(), -1);
}

/// The outputs of a classification head, by their numbers in id2label.
std::vector<std::string> read_classes(const ConfigFile& config) {
  if (!config.has("id2label")) {
    std::vector<std::string> out;
    const auto labels = config.count("num_labels", 2);
    config.expect("num_labels", labels <= kMostClasses, fmt::format("at most {}", kMostClasses));
    for (std::int64_t c = 0; c < labels; ++c) {
      out.push_back(fmt::format("LABEL_{}", c));
    }
    return out;
  }
  const auto& table = config.values()["id2label"];
  config.expect("id2label", table.is_object() && !table.empty(), "a table of names by number");
  std::vector<std::string> out(table.size());
  std::set<std::string> given;
  for (std::size_t c = 0; c < out.size(); ++c) {
    const auto found = table.find(std::to_string(c));
    config.expect("id2label", found != table.end(), fmt::format("the numbers 0 to {}", table.size() - 1));
    out[c] = found->is_string() ? found->get<std::string>() : found->dump();
    config.expect("id2label", given.insert(out[c]).second, "a name of its own for each number");
  }
  return out;
}

void read_common(const ConfigFile& config, TransformerConfig& out) {
  out.vocabulary = config.count("vocab_size");
  out.initial_deviation = config.number("initializer_range", 0.02);
  out.pad_token = pad_token_of(config);
  out.classes = read_classes(config);
  out.problem_type = config.text("problem_type", "");
  if (config.has("architectures")) {
    const auto& list = config.values()["architectures"];
    config.expect("architectures", list.is_array() && (list.empty() || list[0].is_string()), "a list of names");
    out.architecture = list.empty() ? "" : list[0].get<std::string>();
  }
}

/// The keys that every family but GPT-2 shares.
void read_sizes(const ConfigFile& config, TransformerConfig& out) {
  out.width = config.count("hidden_size");
  out.layers = blocks_of(config, "num_hidden_layers");
  out.heads = config.count("num_attention_heads");
  out.inner = config.count("intermediate_size");
}

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
  out.rotary = read_rotary(config, out.width / out.heads, out.context);
  out.architecture_of_tokens = "GPTNeoXForCausalLM";
  out.architecture_of_classes = "GPTNeoXForSequenceClassification";
  return out;
}

/// Of each block of a Mistral or Qwen2: how far back it looks, 0 for all the way.
std::vector<std::int64_t> read_windows(const ConfigFile& config, const std::string& family, std::int64_t layers) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(layers), 0);
  constexpr std::int64_t kIfAbsent = 4096;
  const bool slides = family == "mistral" || (family == "qwen2" && config.flag("use_sliding_window", false));
  const auto window = !slides                                      ? 0
                      : config.has("sliding_window")               ? config.count("sliding_window")
                      : config.values().contains("sliding_window") ? 0
                                                                   : kIfAbsent;
  if (family == "mistral") {
    out.assign(out.size(), window);
  } else if (family == "qwen2" && config.has("layer_types")) {
    const auto& types = config.values()["layer_types"];
    config.expect("layer_types", types.is_array() && types.size() == out.size(),
                  fmt::format("a list of {} words", layers));
    for (std::size_t l = 0; l < out.size(); ++l) {
      config.expect("layer_types",
                    types[l] == "full_attention" || types[l] == "attention" || types[l] == "sliding_attention",
                    "full_attention or sliding_attention for each layer");
      config.expect("layer_types", types[l] != "sliding_attention" || window > 0,
                    "no sliding_attention without use_sliding_window = true and a sliding_window");
      out[l] = types[l] == "sliding_attention" ? window : 0;
    }
  } else if (family == "qwen2" && window > 0) {
    const auto first = config.number("max_window_layers", 28);
    for (std::size_t l = 0; l < out.size(); ++l) {
      out[l] = static_cast<double>(l) >= first ? window : 0;
    }
  }
  return out;
}

/// Llama, and with other defaults Mistral and Qwen2.
TransformerConfig read_llama(const ConfigFile& config) {
  TransformerConfig out;
  out.names = {.prefix = "model.",
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
  const auto family = config.text("model_type", "");
  read_sizes(config, out);
  // null is one for each head; what transformers takes where the key is absent is another thing
  const std::int64_t key_heads_if_absent = family == "mistral" ? 8 : family == "qwen2" ? 32 : out.heads;
  out.key_heads = config.count("num_key_value_heads",
                               config.values().contains("num_key_value_heads") ? out.heads : key_heads_if_absent);
  out.head_width = config.count("head_dim", out.width / out.heads);
  out.context = config.count("max_position_embeddings");
  out.activation = activation_of(config, "hidden_act", "silu");
  out.epsilon = config.number("rms_norm_eps", 1e-6);
  out.tied = config.flag("tie_word_embeddings", false);
  out.rms = true;
  out.query_bias = family == "qwen2" || (family == "llama" && config.flag("attention_bias", false));
  out.attention_out_bias = family == "llama" && config.flag("attention_bias", false);
  out.mlp_bias = family == "llama" && config.flag("mlp_bias", false);
  out.rotary = read_rotary(config, out.head_width, out.context);
  out.windows = read_windows(config, family, out.layers);
  const std::string name = family == "llama" ? "Llama" : family == "mistral" ? "Mistral" : "Qwen2";
  out.architecture_of_tokens = name + "ForCausalLM";
  out.architecture_of_classes = name + "ForSequenceClassification";
  return out;
}

/// BERT, and with other names of its heads and another numbering of positions RoBERTa.
TransformerConfig read_bert(const ConfigFile& config) {
  TransformerConfig out;
  const bool roberta = config.text("model_type", "") == "roberta";
  const std::string prefix = roberta ? "roberta." : "bert.";
  out.names = {.prefix = prefix,
               .tokens = "embeddings.word_embeddings",
               .positions = "embeddings.position_embeddings",
               .types = "embeddings.token_type_embeddings",
               .embedding_norm = "embeddings.LayerNorm",
               .block = "encoder.layer.{}.",
               .attention_norm = "attention.output.LayerNorm",
               .mlp_norm = "output.LayerNorm",
               .query = "attention.self.query",
               .key = "attention.self.key",
               .value = "attention.self.value",
               .attention_out = "attention.output.dense",
               .mlp_in = "intermediate.dense",
               .mlp_out = "output.dense",
               .head_dense = roberta ? "lm_head.dense" : "cls.predictions.transform.dense",
               .head_norm = roberta ? "lm_head.layer_norm" : "cls.predictions.transform.LayerNorm",
               .head = roberta ? "lm_head.decoder" : "cls.predictions.decoder",
               .head_bias = roberta ? "lm_head.bias" : "cls.predictions.bias",
               .class_dense = roberta ? "classifier.dense" : "bert.pooler.dense",
               .classifier = roberta ? "classifier.out_proj" : "classifier"};
  read_sizes(config, out);
  out.activation = activation_of(config, "hidden_act", "gelu");
  out.epsilon = config.number("layer_norm_eps", 1e-12);
  out.tied = config.flag("tie_word_embeddings", true);
  out.causal = false;
  out.post_norm = true;
  out.type_count = config.count("type_vocab_size", 2);
  out.position_offset = roberta ? (config.has("pad_token_id") ? pad_token_of(config) : 1) + 1 : 0;
  out.context = config.count("max_position_embeddings") - out.position_offset;
  out.architecture_of_tokens = roberta ? "RobertaForMaskedLM" : "BertForMaskedLM";
  out.architecture_of_classes = roberta ? "RobertaForSequenceClassification" : "BertForSequenceClassification";
  return out;
}

using Reader = TransformerConfig (*)(const ConfigFile&);
const std::map<std::string, Reader>& families() {
  static const std::map<std::string, Reader> table = {
      {"gpt2", read_gpt2},   {"gpt_neox", read_gpt_neox}, {"llama", read_llama}, {"mistral", read_llama},
      {"qwen2", read_llama}, {"bert", read_bert},         {"roberta", read_bert}};
  return table;
}

}  // namespace

TransformerConfig read_transformer_config(const fs::path& directory) {
  const auto path = directory / "config.json";
  auto values = read_json(path);
  if (!values.is_object()) {
    throw DataError(fmt::format("{}: expected a JSON object", path.string()));
  }
  take_other_spellings(values, path);
  const ConfigFile config(path, values);
  const auto family = config.text("model_type", "");
  const auto found = families().find(family);
  if (found == families().end()) {
    std::vector<std::string> known;
    for (const auto& [name, reader] : families()) {
      known.push_back(name);
    }
    throw DataError(fmt::format("{}: model_type = \"{}\" is not supported, expected one of {}", path.string(), family,
                                fmt::join(known, ", ")));
  }
  check_config_keys(config, family);
  auto out = found->second(config);
  out.family = family;
  out.notes = notes_on_keys(config, family);
  read_common(config, out);
  out.key_heads = out.key_heads > 0 ? out.key_heads : out.heads;
  if (out.head_width == 0) {
    if (out.width % out.heads != 0) {
      throw DataError(
          fmt::format("{}: a width of {} over {} heads, expected a multiple", path.string(), out.width, out.heads));
    }
    out.head_width = out.width / out.heads;
  }
  if (out.heads % out.key_heads != 0) {
    throw DataError(fmt::format("{}: num_key_value_heads = {}, expected a divisor of {} heads", path.string(),
                                out.key_heads, out.heads));
  }
  if (out.context < 1) {
    throw DataError(fmt::format("{}: no positions are left for tokens", path.string()));
  }
  out.windows.resize(static_cast<std::size_t>(out.layers), 0);
  out.json = std::move(values);
  return out;
}

std::string difference_of(const TransformerConfig& a, const TransformerConfig& b) {
  const auto facts = [](const TransformerConfig& c) {
    const auto& r = c.rotary;
    return std::vector<std::pair<const char*, std::string>>{
        {"model_type", c.family},
        {"the vocabulary", std::to_string(c.vocabulary)},
        {"the context", std::to_string(c.context)},
        {"the width", std::to_string(c.width)},
        {"the layers", std::to_string(c.layers)},
        {"the heads", fmt::format("{}, {} for keys, of {}", c.heads, c.key_heads, c.head_width)},
        {"the inner width", std::to_string(c.inner)},
        {"the activation", c.activation},
        {"tie_word_embeddings", fmt::format("{}", c.tied)},
        {"parallel attention and mlp", fmt::format("{}", c.parallel)},
        {"biases", fmt::format("{} {} {}", c.query_bias, c.attention_out_bias, c.mlp_bias)},
        {"the scale of attention", fmt::format("{} {}", c.scale_by_layer, c.scale_attention)},
        {"the norms' epsilon", fmt::format("{}", c.epsilon)},
        {"the first position", std::to_string(c.position_offset)},
        {"the token types", std::to_string(c.type_count)},
        {"pad_token_id", std::to_string(c.pad_token)},
        {"rotary positions",
         fmt::format("{} {} {} {} {} {} {} {} {} {} {}", r.width, r.base, r.scaling, r.factor, r.low_frequency,
                     r.high_frequency, r.beta_fast, r.beta_slow, r.attention_factor, r.truncate, r.original_context)},
        {"how far back layers look", fmt::format("{}", fmt::join(c.windows, " "))}};
  };
  const auto of_a = facts(a), of_b = facts(b);
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i].second != of_b[i].second) {
      return fmt::format("{}: {}, expected {}", of_a[i].first, of_b[i].second, of_a[i].second);
    }
  }
  return {};
}

}  // namespace whence::detail
