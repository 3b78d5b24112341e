// What the readers of several families share.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "whence/models/detail/families.h"

namespace whence::detail {
namespace {

/// Of so many blocks names are made before any weight is looked at.
constexpr std::int64_t kMostBlocks = 10'000;

}  // namespace

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

std::int64_t blocks_of(const ConfigFile& config, const char* key) {
  const auto blocks = config.count(key);
  config.expect(key, blocks <= kMostBlocks, fmt::format("at most {}", kMostBlocks));
  return blocks;
}

std::int64_t pad_token_of(const ConfigFile& config, std::int64_t otherwise) {
  if (!config.has("pad_token_id")) {
    return config.values().contains("pad_token_id") ? -1 : otherwise;
  }
  config.expect("pad_token_id", config.values()["pad_token_id"].is_number_integer(), "a token's number or null");
  return std::max<std::int64_t>(config.values()["pad_token_id"].get<std::int64_t>(), -1);
}

void read_sizes(const ConfigFile& config, TransformerConfig& out) {
  out.width = config.count("hidden_size");
  out.layers = blocks_of(config, "num_hidden_layers");
  out.heads = config.count("num_attention_heads");
  out.inner = config.count("intermediate_size");
}

std::int64_t key_heads_of(const ConfigFile& config, std::int64_t heads, std::int64_t if_absent) {
  return config.count("num_key_value_heads", config.values().contains("num_key_value_heads") ? heads : if_absent);
}

std::int64_t sliding_window_of(const ConfigFile& config, std::int64_t otherwise) {
  return config.has("sliding_window")                 ? config.count("sliding_window")
         : config.values().contains("sliding_window") ? 0
                                                      : otherwise;
}

std::vector<std::int64_t> windows_by_type(const ConfigFile& config, std::int64_t layers, std::int64_t window,
                                          bool (*full)(std::int64_t, std::int64_t), std::int64_t every) {
  std::vector<std::int64_t> out;
  const bool said = config.has("layer_types");
  if (said) {
    const auto& types = config.values()["layer_types"];
    config.expect("layer_types", types.is_array() && types.size() == static_cast<std::size_t>(layers),
                  fmt::format("a list of {} words", layers));
  }
  for (std::int64_t l = 0; l < layers; ++l) {
    bool slides = !full(l, every);
    if (said) {
      const auto& type = config.values()["layer_types"][static_cast<std::size_t>(l)];
      config.expect("layer_types", type == "full_attention" || type == "attention" || type == "sliding_attention",
                    "full_attention or sliding_attention for each layer");
      slides = type == "sliding_attention";
    }
    config.expect("layer_types", !slides || window > 0,
                  "no sliding_attention without use_sliding_window = true and a sliding_window");
    out.push_back(slides ? window : 0);
  }
  return out;
}

}  // namespace whence::detail
