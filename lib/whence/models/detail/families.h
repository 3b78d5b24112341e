#pragma once
// The families of transformers: how each one's config.json is read, and which of its keys decide something.
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "whence/models/detail/config_file.h"
#include "whence/models/detail/transformer_config.h"

namespace whence::detail {

using ConfigKeys = std::set<std::string, std::less<>>;

struct Family {
  std::string type;  ///< model_type
  TransformerConfig (*read)(const ConfigFile&) = nullptr;
  ConfigKeys obeyed;                                                ///< Besides those that all families obey.
  ConfigKeys without_effect = {};                                   ///< Besides those that decide nothing anywhere.
  std::vector<std::pair<std::string, std::string>> spellings = {};  ///< Other names of keys, and the family's own.
  bool causal = true;
  std::int64_t pad_if_absent = -1;  ///< What pad_token_id is where config.json does not say.
};

/// By model_type.
const std::vector<Family>& families();
/// Null where there is none of that model_type.
const Family* find_family(const std::string& type);

/// The word of an activation as models/ops.h has it.
std::string activation_of(const ConfigFile& config, const char* key, const std::string& otherwise);
std::int64_t blocks_of(const ConfigFile& config, const char* key);
/// Not a token where null or negative; `otherwise` where absent.
std::int64_t pad_token_of(const ConfigFile& config, std::int64_t otherwise);
/// What a llama's tensors are called, and those of its kin but for a few.
FamilyNames llama_names();
/// The keys that most families share: hidden_size, num_hidden_layers, num_attention_heads, intermediate_size.
void read_sizes(const ConfigFile& config, TransformerConfig& out);
/// num_key_value_heads: null is one for each head; what transformers takes where the key is absent is another thing.
std::int64_t key_heads_of(const ConfigFile& config, std::int64_t heads, std::int64_t if_absent);
/// layer_types, full_attention or sliding_attention for each block: `window` where it slides. Where absent, block l
/// slides unless `full(l)`.
std::vector<std::int64_t> windows_by_type(const ConfigFile& config, std::int64_t layers, std::int64_t window,
                                          bool (*full)(std::int64_t block, std::int64_t every), std::int64_t every);
/// sliding_window, 0 where it is null, `otherwise` where absent.
std::int64_t sliding_window_of(const ConfigFile& config, std::int64_t otherwise);

/// Where a family's config.json keeps what its rotary positions are.
struct RotaryKeys {
  const char* base = "rope_theta";
  double base_if_absent = 1e4;
  const char* base_too = nullptr;  ///< Read where `base` is absent.
  const char* part = nullptr;      ///< The key of the part of a head that is turned; null: all of it is.
  double part_if_absent = 1;
  const char* layers = nullptr;  ///< Which table of rope_parameters, where each kind of layers has its own.
  bool scaled = true;            ///< Whether rope_scaling is about these layers.
};
/// Both ways in which transformers writes it: rope_theta and rope_scaling, or rope_parameters with all.
Rotary read_rotary(const ConfigFile& config, std::int64_t head_width, std::int64_t context,
                   const RotaryKeys& keys = {});

// A reader for each family: lib/whence/models/families/.
TransformerConfig read_gpt2(const ConfigFile& config);
TransformerConfig read_gpt_neox(const ConfigFile& config);
TransformerConfig read_opt(const ConfigFile& config);
TransformerConfig read_bloom(const ConfigFile& config);
TransformerConfig read_llama(const ConfigFile& config);
TransformerConfig read_olmo2(const ConfigFile& config);
TransformerConfig read_phi3(const ConfigFile& config);
TransformerConfig read_mixtral(const ConfigFile& config);
TransformerConfig read_qwen3_moe(const ConfigFile& config);
TransformerConfig read_gemma2(const ConfigFile& config);
TransformerConfig read_gemma3(const ConfigFile& config);
TransformerConfig read_bert(const ConfigFile& config);
TransformerConfig read_distilbert(const ConfigFile& config);
TransformerConfig read_electra(const ConfigFile& config);
TransformerConfig read_modernbert(const ConfigFile& config);

}  // namespace whence::detail
