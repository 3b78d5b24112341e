#include "whence/models/detail/config_keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "whence/core/json.h"
#include "whence/models/detail/families.h"

namespace whence::detail {
namespace {
using nlohmann::json;

/// What a family's computation depends on.
bool obeys(const std::string& family, const std::string& key) {
  static const ConfigKeys common = {"model_type",          "architectures",     "vocab_size",
                                    "tie_word_embeddings", "id2label",          "num_labels",
                                    "problem_type",        "initializer_range", "tokenizer_class"};
  const auto* known = find_family(family);
  return common.count(key) > 0 || known->obeyed.count(key) > 0 ||
         std::any_of(known->spellings.begin(), known->spellings.end(),
                     [&](const auto& spelling) { return spelling.first == key; });
}

/// Keys that change what transformers computes in a way that is not done here, each with the one value that is.
const std::map<std::string, json>& only_values() {
  static const std::map<std::string, json> table = {
      {"add_cross_attention", false},   {"is_encoder_decoder", false},    {"is_decoder", false},
      {"partial_rotary_factor", 1},     {"per_layer_config", nullptr},    {"position_embedding_type", "absolute"},
      {"pruned_heads", json::object()}, {"quantization_config", nullptr}, {"compression_config", nullptr}};
  return table;
}

/// A value that asks for nothing.
bool is_nothing(const json& value) {
  return value.is_null() || value == false || value == 0 || value == "" || (value.is_structured() && value.empty());
}

bool is_causal(const std::string& family) { return find_family(family)->causal; }

/// A key of only_values() that binds the family: a causal model is a decoder anyway.
bool binds(const std::string& key, const std::string& family) {
  return !obeys(family, key) && !(key == "is_decoder" && is_causal(family));
}

}  // namespace

bool decides_nothing(std::string_view key) {
  static const ConfigKeys keys = {
      // how it was trained: no dropout is ever drawn
      "resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "hidden_dropout_prob",
      "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob", "summary_first_dropout",
      "summary_last_dropout", "gradient_checkpointing",
      // heads of other tasks
      "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "task_specific_params",
      "finetuning_task", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head",
      "pooler_type", "directionality", "label2id",
      // the same numbers, computed otherwise
      "dtype", "torch_dtype", "use_bfloat16", "use_cache", "chunk_size_feed_forward", "reorder_and_upcast_attn",
      "pretraining_tp", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
      "_attn_implementation_autoset", "_experts_implementation", "_flash_attn_2_enabled", "return_dict",
      "use_return_dict", "output_hidden_states", "output_attentions", "tie_last_hidden_states", "torchscript",
      "tf_legacy_loss", "keys_to_ignore_at_inference", "n_ctx",
      // special tokens: the tokenizer's files say which they are
      "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id",
      "decoder_start_token_id", "prefix", "model_max_length",
      // generation
      "max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
      "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
      "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores",
      "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
      "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
      // where it came from
      "_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "is_llama_config", "unsloth_version",
      "unsloth_fixed", "transformers.js_config", "language", "license", "_num_labels", "whence"};
  return keys.count(key) > 0;
}

void take_other_spellings(json& values, const std::filesystem::path& path) {
  if (!values.contains("model_type") || !values["model_type"].is_string()) {
    return;
  }
  const auto* family = find_family(values["model_type"].get<std::string>());
  if (family == nullptr) {
    return;
  }
  for (const auto& [other, own] : family->spellings) {
    if (!values.contains(other)) {
      continue;
    }
    if (values.contains(own) && values[own] != values[other]) {
      throw DataError(fmt::format("{}: {} = {} and {} = {} are two names of one thing, expected one value",
                                  path.string(), own, brief(values[own]), other, brief(values[other])));
    }
    values[own] = values[other];
    values.erase(other);
  }
}

void check_config_keys(const ConfigFile& config, const std::string& family) {
  for (const auto& [key, only] : only_values()) {
    if (!config.has(key.c_str()) || !binds(key, family)) {
      continue;
    }
    const auto& value = config.values()[key];
    if (value != only && !(is_nothing(only) && is_nothing(value))) {
      const std::string what = key == "quantization_config" || key == "compression_config"
                                   ? "none: the weights are quantized, which is not read; save them dequantized"
                                   : only.dump();
      config.fail(key.c_str(), what);
    }
  }
}

std::vector<std::string> notes_on_keys(const ConfigFile& config, const std::string& family) {
  std::vector<std::string> out, strange;
  for (const auto& [key, value] : config.values().items()) {
    if (key != "auto_map" && !is_nothing(value) && use_of_key(key, family).empty()) {
      strange.push_back(fmt::format("{} = {}", key, brief(value)));
    }
  }
  if (!strange.empty()) {
    out.push_back(fmt::format("{}: neither whence nor transformers' own {} reads {}", config.path().string(), family,
                              fmt::join(strange, ", ")));
  }
  const auto problem = config.text("problem_type", "");
  if (problem == "multi_label_classification" || problem == "regression") {
    out.push_back(
        fmt::format("{}: problem_type = {}: transformers gives that head {}, which is not the loss cross-entropy",
                    config.path().string(), problem,
                    problem == "regression" ? "a squared error (loss = \"squared-error\")"
                                            : "a sigmoid for each class (loss = \"binary-cross-entropy\")"));
  }
  if (config.has("auto_map")) {
    out.push_back(fmt::format("{}: auto_map names code of the folder's own, which is not run: this is transformers' {}",
                              config.path().string(), family));
  }
  if (config.has("label2id") && config.has("id2label") && config.values()["label2id"].is_object()) {
    for (const auto& [name, number] : config.values()["label2id"].items()) {
      const auto& names = config.values()["id2label"];
      const auto text = number.is_string() ? number.get<std::string>() : number.dump();
      if (names.is_object() && names.contains(text) && names[text] != name) {
        out.push_back(fmt::format("{}: label2id numbers \"{}\" {}, which is {} in id2label: the latter is followed",
                                  config.path().string(), name, text, names[text].dump()));
        break;
      }
    }
  }
  return out;
}

std::string use_of_key(const std::string& key, const std::string& family) {
  if (obeys(family, key)) {
    return "obeyed";
  }
  if (const auto found = only_values().find(key); found != only_values().end() && binds(key, family)) {
    return is_nothing(found->second) && !found->second.is_boolean() ? "refused" : "only " + found->second.dump();
  }
  return decides_nothing(key) || find_family(family)->without_effect.count(key) > 0 ||
                 (key == "is_decoder" && is_causal(family))
             ? "no effect"
             : "";
}

}  // namespace whence::detail
