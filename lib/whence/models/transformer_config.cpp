#include "whence/models/detail/transformer_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "whence/core/error.h"
#include "whence/core/json.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

/// config.json with messages that name the file and the key.
class Config {
 public:
  Config(fs::path path, json values) : path_(std::move(path)), values_(std::move(values)) {}

  const json& values() const { return values_; }
  bool has(const char* key) const { return values_.contains(key) && !values_[key].is_null(); }

  std::int64_t count(const char* key) const {
    if (!has(key) || !values_[key].is_number_integer() || values_[key].get<std::int64_t>() < 1 ||
        values_[key].get<std::int64_t>() > INT32_MAX) {
      fail(key, "a whole number >= 1");
    }
    return values_[key];
  }
  std::int64_t count(const char* key, std::int64_t otherwise) const { return has(key) ? count(key) : otherwise; }
  double number(const char* key, double otherwise) const { return number_in(values_, key, otherwise); }
  double number_in(const json& table, const char* key, double otherwise) const {
    if (!table.contains(key) || table[key].is_null()) {
      return otherwise;
    }
    if (!table[key].is_number() || !std::isfinite(table[key].get<double>())) {
      throw DataError(fmt::format("{}: {} = {}, expected a number", path_.string(), key, table[key].dump()));
    }
    return table[key];
  }
  bool flag(const char* key, bool otherwise) const {
    if (!has(key)) {
      return otherwise;
    }
    if (!values_[key].is_boolean()) {
      fail(key, "true or false");
    }
    return values_[key];
  }
  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) {
      return otherwise;
    }
    if (!values_[key].is_string()) {
      fail(key, "a text");
    }
    return values_[key];
  }
  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    throw DataError(fmt::format("{}: {} = {}, expected {}", path_.string(), key,
                                has(key) ? values_[key].dump() : "missing", expected));
  }
  void expect(const char* key, bool holds, const std::string& expected) const {
    if (!holds) {
      fail(key, expected);
    }
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  json values_;
};

std::string activation_of(const Config& config, const char* key, const std::string& otherwise) {
  static const std::map<std::string, std::string> known = {
      {"gelu", "gelu"},           {"gelu_new", "gelu-tanh"}, {"gelu_pytorch_tanh", "gelu-tanh"},
      {"gelu_fast", "gelu-tanh"}, {"relu", "relu"},          {"silu", "silu"},
      {"swish", "silu"},          {"tanh", "tanh"},          {"quick_gelu", "quick-gelu"}};
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

/// Both ways in which transformers writes it: rope_theta and rope_scaling, or rope_parameters with all.
Rotary read_rotary(const Config& config, std::int64_t head_width, std::int64_t context) {
  Rotary out;
  json scaling = json::object();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.has(key)) {
      config.expect(key, config.values()[key].is_object(), "a table or null");
      scaling = config.values()[key];
    }
  }
  out.base =
      config.number_in(scaling, "rope_theta", config.number("rope_theta", config.number("rotary_emb_base", 1e4)));
  const double part = config.number_in(scaling, "partial_rotary_factor",
                                       config.number("partial_rotary_factor", config.number("rotary_pct", 1)));
  out.width = static_cast<std::int64_t>(static_cast<double>(head_width) * part);
  out.original_context = context;
  for (const char* key : {"type", "rope_type"}) {
    if (scaling.contains(key) && scaling[key].is_string()) {
      out.scaling = scaling[key];
    }
  }
  const std::vector<std::string> known = {"default", "linear", "dynamic", "llama3", "yarn"};
  if (std::find(known.begin(), known.end(), out.scaling) == known.end()) {
    throw DataError(fmt::format("{}: rope_scaling type = \"{}\", expected one of {}", config.path().string(),
                                out.scaling, fmt::join(known, ", ")));
  }
  if (out.width < 2 || out.width % 2 != 0 || out.base <= 1) {
    throw DataError(
        fmt::format("{}: rotary positions over {} of a head's dimensions with base {}, expected an even "
                    "number >= 2 and a base > 1",
                    config.path().string(), out.width, out.base));
  }
  out.factor = config.number_in(scaling, "factor", 1);
  out.low_frequency = config.number_in(scaling, "low_freq_factor", out.low_frequency);
  out.high_frequency = config.number_in(scaling, "high_freq_factor", out.high_frequency);
  out.beta_fast = config.number_in(scaling, "beta_fast", out.beta_fast);
  out.beta_slow = config.number_in(scaling, "beta_slow", out.beta_slow);
  out.truncate = !scaling.contains("truncate") || scaling["truncate"] != false;
  out.original_context = static_cast<std::int64_t>(
      config.number_in(scaling, "original_max_position_embeddings", static_cast<double>(context)));
  if (out.factor < 1 || out.original_context < 1) {
    throw DataError(fmt::format("{}: rope_scaling factor = {}, original_max_position_embeddings = {}, expected >= 1",
                                config.path().string(), out.factor, out.original_context));
  }
  if (out.scaling == "yarn") {
    const auto magnitude = [](double factor, double times) {
      return factor <= 1 ? 1 : 0.1 * times * std::log(factor) + 1;
    };
    const double once = config.number_in(scaling, "mscale", 0), all = config.number_in(scaling, "mscale_all_dim", 0);
    const double own =
        once > 0 && all > 0 ? magnitude(out.factor, once) / magnitude(out.factor, all) : magnitude(out.factor, 1);
    out.attention_factor = config.number_in(scaling, "attention_factor", own);
  }
  return out;
}

void read_common(const Config& config, TransformerConfig& out) {
  out.vocabulary = config.count("vocab_size");
  out.initial_deviation = config.number("initializer_range", 0.02);
}

/// The keys that every family but GPT-2 shares.
void read_sizes(const Config& config, TransformerConfig& out) {
  out.width = config.count("hidden_size");
  out.layers = config.count("num_hidden_layers");
  out.heads = config.count("num_attention_heads");
  out.inner = config.count("intermediate_size");
}

TransformerConfig read_gpt2(const Config& config) {
  TransformerConfig out;
  out.names = {.prefix = "transformer.",
               .tokens = "wte",
               .positions = "wpe",
               .types = "",
               .embedding_norm = "",
               .block = "h.{}.",
               .attention_norm = "ln_1",
               .mlp_norm = "ln_2",
               .final_norm = "ln_f",
               .query = "",
               .key = "",
               .value = "",
               .query_key_value = "attn.c_attn",
               .attention_out = "attn.c_proj",
               .mlp_in = "mlp.c_fc",
               .mlp_gate = "",
               .mlp_out = "mlp.c_proj",
               .head_dense = "",
               .head_norm = "",
               .head = "lm_head",
               .head_bias = "",
               .class_dense = "",
               .classifier = "score"};
  config.expect("add_cross_attention", !config.flag("add_cross_attention", false), "false");
  out.width = config.count("n_embd");
  out.layers = config.count("n_layer");
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

TransformerConfig read_gpt_neox(const Config& config) {
  TransformerConfig out;
  out.names = {.prefix = "gpt_neox.",
               .tokens = "embed_in",
               .positions = "",
               .types = "",
               .embedding_norm = "",
               .block = "layers.{}.",
               .attention_norm = "input_layernorm",
               .mlp_norm = "post_attention_layernorm",
               .final_norm = "final_layer_norm",
               .query = "",
               .key = "",
               .value = "",
               .query_key_value = "attention.query_key_value",
               .attention_out = "attention.dense",
               .mlp_in = "mlp.dense_h_to_4h",
               .mlp_gate = "",
               .mlp_out = "mlp.dense_4h_to_h",
               .head_dense = "",
               .head_norm = "",
               .head = "embed_out",
               .head_bias = "",
               .class_dense = "",
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
  if (!config.has("rotary_pct") && !config.has("rope_parameters") && !config.has("partial_rotary_factor")) {
    out.rotary.width = out.width / out.heads / 4;  // transformers' default
  }
  out.architecture_of_tokens = "GPTNeoXForCausalLM";
  out.architecture_of_classes = "GPTNeoXForSequenceClassification";
  return out;
}

/// Llama, and with other defaults Mistral and Qwen2.
TransformerConfig read_llama(const Config& config) {
  TransformerConfig out;
  out.names = {.prefix = "model.",
               .tokens = "embed_tokens",
               .positions = "",
               .types = "",
               .embedding_norm = "",
               .block = "layers.{}.",
               .attention_norm = "input_layernorm",
               .mlp_norm = "post_attention_layernorm",
               .final_norm = "norm",
               .query = "self_attn.q_proj",
               .key = "self_attn.k_proj",
               .value = "self_attn.v_proj",
               .query_key_value = "",
               .attention_out = "self_attn.o_proj",
               .mlp_in = "mlp.up_proj",
               .mlp_gate = "mlp.gate_proj",
               .mlp_out = "mlp.down_proj",
               .head_dense = "",
               .head_norm = "",
               .head = "lm_head",
               .head_bias = "",
               .class_dense = "",
               .classifier = "score"};
  const auto family = config.text("model_type", "");
  read_sizes(config, out);
  out.key_heads = config.count("num_key_value_heads", family == "mistral" ? 8 : out.heads);
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
  if (family == "mistral" && config.has("sliding_window")) {
    out.windows.assign(static_cast<std::size_t>(out.layers), config.count("sliding_window"));
  }
  if (family == "qwen2" && config.flag("use_sliding_window", false) && config.has("sliding_window")) {
    out.windows.assign(static_cast<std::size_t>(out.layers), 0);
    for (auto l = config.count("max_window_layers", out.layers); l < out.layers; ++l) {
      out.windows[static_cast<std::size_t>(l)] = config.count("sliding_window");
    }
  }
  const std::string name = family == "llama" ? "Llama" : family == "mistral" ? "Mistral" : "Qwen2";
  out.architecture_of_tokens = name + "ForCausalLM";
  out.architecture_of_classes = name + "ForSequenceClassification";
  return out;
}

/// BERT, and with other names of its heads and another numbering of positions RoBERTa.
TransformerConfig read_bert(const Config& config) {
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
               .final_norm = "",
               .query = "attention.self.query",
               .key = "attention.self.key",
               .value = "attention.self.value",
               .query_key_value = "",
               .attention_out = "attention.output.dense",
               .mlp_in = "intermediate.dense",
               .mlp_gate = "",
               .mlp_out = "output.dense",
               .head_dense = roberta ? "lm_head.dense" : "cls.predictions.transform.dense",
               .head_norm = roberta ? "lm_head.layer_norm" : "cls.predictions.transform.LayerNorm",
               .head = roberta ? "lm_head.decoder" : "cls.predictions.decoder",
               .head_bias = roberta ? "lm_head.bias" : "cls.predictions.bias",
               .class_dense = roberta ? "classifier.dense" : "bert.pooler.dense",
               .classifier = roberta ? "classifier.out_proj" : "classifier"};
  config.expect("position_embedding_type", config.text("position_embedding_type", "absolute") == "absolute",
                "absolute");
  config.expect("is_decoder", !config.flag("is_decoder", false), "false");
  read_sizes(config, out);
  out.activation = activation_of(config, "hidden_act", "gelu");
  out.epsilon = config.number("layer_norm_eps", 1e-12);
  out.tied = config.flag("tie_word_embeddings", true);
  out.causal = false;
  out.post_norm = true;
  out.type_count = config.count("type_vocab_size", 2);
  const auto pad = roberta ? (config.has("pad_token_id") ? config.values()["pad_token_id"].get<std::int64_t>() : 1) : 0;
  out.position_offset = roberta ? pad + 1 : 0;
  out.context = config.count("max_position_embeddings") - out.position_offset;
  out.architecture_of_tokens = roberta ? "RobertaForMaskedLM" : "BertForMaskedLM";
  out.architecture_of_classes = roberta ? "RobertaForSequenceClassification" : "BertForSequenceClassification";
  return out;
}

using Reader = TransformerConfig (*)(const Config&);
const std::map<std::string, Reader>& families() {
  static const std::map<std::string, Reader> table = {
      {"gpt2", read_gpt2},   {"gpt_neox", read_gpt_neox}, {"llama", read_llama}, {"mistral", read_llama},
      {"qwen2", read_llama}, {"bert", read_bert},         {"roberta", read_bert}};
  return table;
}

}  // namespace

TransformerConfig read_transformer_config(const fs::path& directory) {
  const auto path = directory / "config.json";
  const auto values = read_json(path);
  if (!values.is_object()) {
    throw DataError(fmt::format("{}: expected a JSON object", path.string()));
  }
  const Config config(path, values);
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
  auto out = found->second(config);
  out.family = family;
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

std::vector<double> rotary_frequencies(const Rotary& rotary, std::int64_t context, std::int64_t length) {
  const auto width = static_cast<double>(rotary.width);
  double base = rotary.base;
  if (rotary.scaling == "dynamic" && length > context) {
    const double stretch =
        rotary.factor * static_cast<double>(length) / static_cast<double>(context) - (rotary.factor - 1);
    base *= std::pow(stretch, width / (width - 2));
  }
  std::vector<double> out;
  for (std::int64_t i = 0; i < rotary.width / 2; ++i) {
    out.push_back(std::pow(base, -2 * static_cast<double>(i) / width));
  }
  const auto original = static_cast<double>(rotary.original_context);
  if (rotary.scaling == "linear") {
    for (auto& f : out) {
      f /= rotary.factor;
    }
  } else if (rotary.scaling == "llama3") {  // long waves are stretched, short ones not, those between in part
    for (auto& f : out) {
      const double waves = original * f / (2 * std::numbers::pi);
      if (waves < rotary.low_frequency) {
        f /= rotary.factor;
      } else if (waves <= rotary.high_frequency) {
        const double smooth = (waves - rotary.low_frequency) / (rotary.high_frequency - rotary.low_frequency);
        f = (1 - smooth) * f / rotary.factor + smooth * f;
      }
    }
  } else if (rotary.scaling == "yarn") {
    const auto dimension = [&](double turns) {
      return width * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
    };
    double low = dimension(rotary.beta_fast), high = dimension(rotary.beta_slow);
    if (rotary.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, width - 1);
    high = low == high ? high + 0.001 : high;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      out[i] = out[i] / rotary.factor * ramp + out[i] * (1 - ramp);
    }
  }
  return out;
}

}  // namespace whence::detail
