#include "whence/models/detail/hugging_face.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/output.h"
#include "whence/data/safetensors.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/detail/model_folder.h"
#include "whence/models/head.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

constexpr std::array kTokenizerFiles = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "vocab.txt",
                                        "tokenizer.model",
                                        "generation_config.json",
                                        "chat_template.jinja"};

/// What checkpoints hold besides parameters, and other tasks' heads.
bool is_ignored(const std::string& name, const FamilyNames& names) {
  static constexpr std::array kBuffers = {
      ".attn.bias",           ".attn.masked_bias", ".attention.bias", ".attention.masked_bias",
      ".rotary_emb.inv_freq", "position_ids",      "token_type_ids"};
  const auto ends = [&](const char* end) { return name.ends_with(end); };
  if (std::any_of(kBuffers.begin(), kBuffers.end(), ends)) {
    return true;
  }
  static constexpr std::array kHeads = {"cls.",
                                        "lm_head.",
                                        "embed_out.",
                                        "score.",
                                        "classifier.",
                                        "pooler.",
                                        "qa_outputs.",
                                        "vocab_",
                                        "pre_classifier.",
                                        "generator_",
                                        "discriminator_predictions.",
                                        "head.",
                                        "decoder.weight",
                                        "decoder.bias"};
  const auto begins = [&](const char* begin) {
    return name.starts_with(begin) || name.starts_with(names.prefix + begin);
  };
  return std::any_of(kHeads.begin(), kHeads.end(), begins);
}

/// Whether what the weights call the classifier is one of tokens or of choices.
bool has_other_head(const TransformerConfig& config) {
  return config.architecture.ends_with("ForTokenClassification") || config.architecture.ends_with("ForMultipleChoice");
}

/// Names of norms in checkpoints of before 2020.
std::string modern(std::string name) {
  for (const auto& [old_end, end] : {std::pair(".gamma", ".weight"), std::pair(".beta", ".bias")}) {
    if (name.ends_with(old_end)) {
      name.replace(name.size() - std::string_view(old_end).size(), std::string::npos, end);
    }
  }
  return name;
}

}  // namespace

std::map<std::string, at::Tensor> read_weights(const std::vector<fs::path>& files, const TransformerConfig& config,
                                               const std::vector<DeclaredParameter>& declared, Heads heads) {
  const Head head;
  const auto& prefix = config.names.prefix;
  std::map<std::string, const DeclaredParameter*> by_stored_name;
  for (const auto& parameter : declared) {
    auto stored = config.names.in_files(parameter.name);
    if (stored.starts_with(prefix)) {  // which files may lack, or its beginning
      for (auto at = prefix.find('.'); at != prefix.npos; at = prefix.find('.', at + 1)) {
        by_stored_name[stored.substr(at + 1)] = &parameter;
      }
    }
    by_stored_name[std::move(stored)] = &parameter;
  }
  const auto decoder_bias = config.names.head_bias.empty() ? "" : config.names.head + ".bias";
  std::map<std::string, at::Tensor> out;
  for (const auto& file : files) {
    const auto tensors = read_intact_weights(file);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto& name = tensors.names()[i];
      const auto& value = tensors.values()[i];
      // the bias of the words is there under one of two names, or both; then transformers adds this one
      const bool is_decoder_bias = !decoder_bias.empty() && name == decoder_bias;
      const auto found = by_stored_name.find(is_decoder_bias ? config.names.head_bias : modern(name));
      if (found == by_stored_name.end()) {
        if (is_ignored(name, config.names)) {
          continue;
        }
        throw DataError(fmt::format("{}: tensor \"{}\" is not one of a {} with {} blocks as config.json describes it",
                                    file.string(), name, config.family, config.layers));
      }
      const auto& parameter = *found->second;
      if (head.holds(parameter.name) && has_other_head(config)) {
        continue;
      }
      if (value.sizes() != at::IntArrayRef(parameter.shape)) {
        if (heads == Heads::kThatFit && head.holds(parameter.name)) {
          continue;
        }
        throw DataError(fmt::format("{}: tensor \"{}\" has shape [{}], expected [{}] by {}", file.string(), name,
                                    fmt::join(value.sizes(), ", "), fmt::join(parameter.shape, ", "),
                                    head.holds(parameter.name) ? "the data's classes" : "config.json"));
      }
      if (!value.is_floating_point()) {
        throw DataError(fmt::format("{}: tensor \"{}\" has dtype {}, expected a floating one", file.string(), name,
                                    c10::toString(value.scalar_type())));
      }
      if (!at::isfinite(value).all().item<bool>()) {
        throw DataError(fmt::format("{}: tensor \"{}\" holds NaN or infinity", file.string(), name));
      }
      if (is_decoder_bias || name == found->first || out.count(parameter.name) == 0) {
        out[parameter.name] = value;
      }
    }
  }
  return out;
}

bool has_own_head(const std::vector<fs::path>& files, const TransformerConfig& config) {
  at::Tensor head, tokens;
  const auto& names = config.names;
  for (const auto& file : files) {
    const auto tensors = read_safetensors(file);
    const auto take = [&](const std::string& name, at::Tensor& into) {
      if (tensors.contains(name)) {
        into = tensors.at(name);
      }
    };
    take(names.head + ".weight", head);
    take(names.tokens + ".weight", tokens);
    take(names.prefix.substr(names.prefix.find('.') + 1) + names.tokens + ".weight", tokens);
    take(names.prefix + names.tokens + ".weight", tokens);
  }
  return head.defined() && tokens.defined() && !(head.sizes() == tokens.sizes() && at::equal(head, tokens));
}

std::int64_t class_outputs(const std::vector<fs::path>& files, const TransformerConfig& config) {
  if (has_other_head(config)) {
    return 0;
  }
  for (const auto& file : files) {
    const auto tensors = read_safetensors(file);
    if (const auto name = config.names.classifier + ".weight"; tensors.contains(name)) {
      return tensors.at(name).size(0);
    }
  }
  return 0;
}

bool is_by_whence(const fs::path& directory) {
  const auto weights = directory / "model.safetensors";
  return fs::exists(weights) && read_safetensors_metadata(weights).count("whence") > 0;
}

void write_hugging_face(const fs::path& directory, const fs::path& source, const TransformerConfig& config,
                        const ParameterSet& theta, const std::vector<std::string>& classes,
                        std::map<std::string, std::string> metadata) {
  if (fs::exists(directory) && !fs::is_empty(directory) && !is_by_whence(directory)) {
    throw InvalidArgument(
        fmt::format("{}: holds files that whence did not write, and is left as it is: name another "
                    "folder, or an empty one",
                    directory.string()));
  }
  auto description = config.json;
  const Head head;
  const bool classifies = !head.of(theta).empty();
  description["architectures"] =
      json::array({classifies ? config.architecture_of_classes : config.architecture_of_tokens});
  description.erase("torch_dtype");
  description["dtype"] = "float32";
  description["tie_word_embeddings"] = config.tied;
  for (const char* key : {"num_labels", "id2label", "label2id", "problem_type"}) {
    description.erase(key);
  }
  if (classifies) {
    const auto outputs = theta.at(head.qualified(config.names.classifier + ".weight")).size(0);
    description["id2label"] = description["label2id"] = json::object();
    for (std::int64_t c = 0; c < outputs; ++c) {
      const auto name = static_cast<std::size_t>(c) < classes.size() ? classes[static_cast<std::size_t>(c)]
                                                                     : fmt::format("LABEL_{}", c);
      description["id2label"][std::to_string(c)] = name;
      description["label2id"][name] = c;
    }
  }
  ParameterSet stored;
  for (std::size_t i = 0; i < theta.size(); ++i) {
    stored.add(config.names.in_files(theta.names()[i]),
               theta.values()[i].detach().to(at::kCPU, at::kFloat).contiguous());
  }
  metadata["format"] = "pt";
  metadata["whence"] = "1";
  write_folder_atomically(directory, [&](const fs::path& part) {
    // a class may be named in anything, and weights must not be lost over that
    write_text(part / "config.json", json_text(description, 2) + "\n");
    for (const char* name : kTokenizerFiles) {
      if (fs::exists(source / name)) {
        fs::copy_file(source / name, part / name);
      }
    }
    write_sealed(part / "model.safetensors", stored, std::move(metadata));
  });
}

}  // namespace whence::detail
