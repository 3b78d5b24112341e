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
#include "whence/data/safetensors.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

constexpr std::string_view kHead = "head.";
constexpr std::array kTokenizerFiles = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
    "vocab.txt",      "tokenizer.model",       "generation_config.json"};

/// The files that hold the weights: one, or the shards that the index names.
std::vector<fs::path> weight_files(const fs::path& directory) {
  const auto single = directory / "model.safetensors", index = directory / "model.safetensors.index.json";
  if (fs::exists(single)) {
    return {single};
  }
  if (!fs::exists(index)) {
    throw DataError(fmt::format(
        "{}: no model.safetensors and no model.safetensors.index.json (weights in other formats can run code: convert "
        "them)",
        directory.string()));
  }
  const auto table = read_json(index);
  if (!table.is_object() || !table.contains("weight_map") || !table["weight_map"].is_object()) {
    throw DataError(fmt::format("{}: no weight_map", index.string()));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : table["weight_map"].items()) {
    if (!file.is_string() || fs::path(file.get<std::string>()).has_parent_path()) {
      throw DataError(
          fmt::format("{}: tensor \"{}\" is in {}, expected a file's name", index.string(), tensor, file.dump()));
    }
    if (names.insert(file.get<std::string>()).second && !fs::exists(directory / file.get<std::string>())) {
      throw DataError(fmt::format("{}: the shard {}, which holds \"{}\", is missing", index.string(),
                                  file.get<std::string>(), tensor));
    }
  }
  std::vector<fs::path> out;
  for (const auto& name : names) {
    out.push_back(directory / name);
  }
  return out;
}

/// What checkpoints hold besides parameters, and other tasks' heads.
bool is_ignored(const std::string& name, const FamilyNames& names) {
  static constexpr std::array kBuffers = {
      ".attn.bias",           ".attn.masked_bias", ".attention.bias", ".attention.masked_bias",
      ".rotary_emb.inv_freq", "position_ids",      "token_type_ids"};
  const auto ends = [&](const char* end) { return name.ends_with(end); };
  if (std::any_of(kBuffers.begin(), kBuffers.end(), ends)) {
    return true;
  }
  static constexpr std::array kHeads = {"cls.",        "lm_head.", "embed_out.", "score.",
                                        "classifier.", "pooler.",  "qa_outputs."};
  const auto begins = [&](const char* begin) {
    return name.starts_with(begin) || name.starts_with(names.prefix + begin);
  };
  return std::any_of(kHeads.begin(), kHeads.end(), begins);
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

bool has_weights(const fs::path& directory) {
  return fs::exists(directory / "model.safetensors") || fs::exists(directory / "model.safetensors.index.json");
}

std::map<std::string, at::Tensor> read_weights(const fs::path& directory, const TransformerConfig& config,
                                               const std::vector<DeclaredParameter>& declared) {
  const auto& prefix = config.names.prefix;
  std::map<std::string, const DeclaredParameter*> by_stored_name;
  for (const auto& parameter : declared) {
    auto stored = parameter.name.starts_with(kHead) ? parameter.name.substr(kHead.size()) : parameter.name;
    if (stored.starts_with(prefix)) {
      by_stored_name[stored.substr(prefix.size())] = &parameter;
    }
    by_stored_name[std::move(stored)] = &parameter;
  }
  std::map<std::string, at::Tensor> out;
  for (const auto& file : weight_files(directory)) {
    const auto tensors = read_safetensors(file);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto& name = tensors.names()[i];
      const auto& value = tensors.values()[i];
      const auto found = by_stored_name.find(modern(name));
      if (found == by_stored_name.end()) {
        if (is_ignored(name, config.names)) {
          continue;
        }
        throw DataError(fmt::format("{}: tensor \"{}\" is not one of a {} with {} blocks as config.json describes it",
                                    file.string(), name, config.family, config.layers));
      }
      const auto& parameter = *found->second;
      if (value.sizes() != at::IntArrayRef(parameter.shape)) {
        throw DataError(fmt::format("{}: tensor \"{}\" has shape [{}], expected [{}] by config.json", file.string(),
                                    name, fmt::join(value.sizes(), ", "), fmt::join(parameter.shape, ", ")));
      }
      if (!value.is_floating_point()) {
        throw DataError(fmt::format("{}: tensor \"{}\" has dtype {}, expected a floating one", file.string(), name,
                                    c10::toString(value.scalar_type())));
      }
      if (!at::isfinite(value).all().item<bool>()) {
        throw DataError(fmt::format("{}: tensor \"{}\" holds NaN or infinity", file.string(), name));
      }
      out[parameter.name] = value;
    }
  }
  return out;
}

void write_hugging_face(const fs::path& directory, const fs::path& source, const TransformerConfig& config,
                        const ParameterSet& theta, const std::vector<std::string>& classes) {
  fs::create_directories(directory);
  auto description = config.json;
  const bool classifies = !theta.select(kHead).empty();
  description["architectures"] =
      json::array({classifies ? config.architecture_of_classes : config.architecture_of_tokens});
  description.erase("torch_dtype");
  description["dtype"] = "float32";
  description.erase("num_labels");
  if (classifies) {
    const auto outputs = theta.at(fmt::format("{}{}.weight", kHead, config.names.classifier)).size(0);
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
    const auto& name = theta.names()[i];
    stored.add(name.starts_with(kHead) ? name.substr(kHead.size()) : name,
               theta.values()[i].detach().to(at::kCPU, at::kFloat).contiguous());
  }
  write_text(directory / "config.json", description.dump(2) + "\n");
  for (const char* name : kTokenizerFiles) {
    if (fs::exists(source / name) && fs::absolute(source) != fs::absolute(directory)) {
      fs::copy_file(source / name, directory / name, fs::copy_options::overwrite_existing);
    }
  }
  write_safetensors(directory / "model.safetensors", stored, {{"format", "pt"}});  // last: its presence says complete
}

}  // namespace whence::detail
