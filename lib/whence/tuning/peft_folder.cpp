#include "whence/tuning/detail/peft_folder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "whence/data/sealed_safetensors.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {

/// The types that are read, and what each adds at a module.
const std::map<std::string, std::vector<std::string>>& types() {
  static const std::map<std::string, std::vector<std::string>> table = {
      {"LORA",
       {"lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_magnitude_vector", "lora_embedding_A",
        "lora_embedding_B"}},
      {"ADALORA", {"lora_A", "lora_B", "lora_E"}},
      {"IA3", {"ia3_l"}},
      {"HIRA", {"hira_A", "hira_B"}},
      {"HRA", {"hra_u"}},
      {"LN_TUNING", {"ln_tuning_layers.weight", "ln_tuning_layers.bias"}},
      {"BEFT", {"beft_bias"}},
      {"PREFIX_TUNING", {}},
      {"PROMPT_TUNING", {}},
      {"P_TUNING", {}},
  };
  return table;
}

/// What a module that has one of these has too.
const std::map<std::string, std::vector<std::string>>& partners() {
  static const std::map<std::string, std::vector<std::string>> table = {
      {"lora_A.weight", {"lora_B.weight"}},
      {"lora_B.weight", {"lora_A.weight"}},
      {"lora_B.bias", {"lora_A.weight", "lora_B.weight"}},
      {"lora_magnitude_vector", {"lora_A.weight", "lora_B.weight"}},
      {"lora_embedding_A", {"lora_embedding_B"}},
      {"lora_embedding_B", {"lora_embedding_A"}},
      {"lora_A", {"lora_B", "lora_E"}},
      {"lora_B", {"lora_A", "lora_E"}},
      {"lora_E", {"lora_A", "lora_B"}},
      {"hira_A", {"hira_B"}},
      {"hira_B", {"hira_A"}},
  };
  return table;
}

/// Throws DataError for a tensor of a method's that is no numbers of any use, or another that is not finite.
void check_tensor(const std::string& where, const std::string& name, const at::Tensor& value, bool of_method) {
  if (of_method && (value.dim() == 0 || !value.is_floating_point())) {
    throw DataError(
        fmt::format("{}: tensor \"{}\" has shape [{}] and dtype {}, expected a floating one of one dimension or more",
                    where, name, fmt::join(value.sizes(), ", "), c10::toString(value.scalar_type())));
  }
  if (const auto bad = at::isfinite(value).logical_not().sum().item<std::int64_t>(); bad > 0) {
    throw DataError(fmt::format("{}: tensor \"{}\" is not finite: {} of {} entries are NaN or infinite", where, name,
                                bad, value.numel()));
  }
}

JsonView read_config(const fs::path& directory) {
  const auto path = directory / kPeftConfig;
  if (!fs::exists(path)) {
    throw DataError(
        fmt::format("{}: {} is not there, which says what the adapter is", directory.string(), kPeftConfig));
  }
  return JsonView::read(path);
}

ParameterSet read_tensors(const fs::path& directory) {
  const auto path = directory / kPeftWeights;
  if (!fs::exists(path)) {
    throw DataError(
        fs::exists(directory / "adapter_model.bin")
            ? fmt::format("{}: the weights are a pickle, adapter_model.bin, which may run code and is not read; where "
                          "it was trained, save_pretrained(\"{}\", safe_serialization=True) writes {}",
                          directory.string(), directory.string(), kPeftWeights)
            : fmt::format("{}: {} is not there", directory.string(), kPeftWeights));
  }
  return read_intact_weights(path);
}

std::string without(std::string name, std::string_view part) {
  if (const auto at = name.find(part); at != name.npos) {
    name.erase(at, part.size());
  }
  return name;
}

}  // namespace

const std::vector<std::string>& peft_parts(const std::string& type) { return types().at(type); }

PeftFolder::PeftFolder(const fs::path& directory)
    : where((directory / kPeftWeights).string()), config(read_config(directory)) {
  type = config["peft_type"].get<std::string>();
  const auto known = types().find(type);
  if (known == types().end()) {
    std::vector<std::string> names;
    for (const auto& [name, parts_of_it] : types()) {
      names.push_back(name);
    }
    refuse("peft_type", fmt::format("one of {}", fmt::join(names, ", ")));
  }
  const auto tensors = read_tensors(directory);  // whose names and types nothing vouches for
  std::set<std::string> seen;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    auto name = tensors.names()[i];
    for (const std::string_view prefix : {"base_model.model.", "base_model."}) {
      if (name.starts_with(prefix)) {
        name.erase(0, prefix.size());
        break;
      }
    }
    const auto& value = tensors.values()[i];
    const auto part = std::find_if(known->second.begin(), known->second.end(),
                                   [&](const std::string& end) { return name.ends_with("." + end); });
    check_tensor(where, name, value, part != known->second.end() || name == "prompt_embeddings");
    if (name == "prompt_embeddings" && known->second.empty()) {
      prompt = value;
    } else if (part != known->second.end()) {
      parts.push_back({name.substr(0, name.size() - part->size() - 1), *part, value});
      if (!seen.insert(name).second) {
        throw DataError(fmt::format("{}: two tensors are {}", where, name));
      }
    } else {
      name = without(std::move(name), "base_layer.");
      if (whole.contains(name)) {
        throw DataError(fmt::format("{}: two tensors are {}", where, name));
      }
      whole.add(std::move(name), value);
    }
  }
  for (const auto& part : parts) {
    const auto needed = partners().find(part.name);
    for (const auto& other : needed == partners().end() ? std::vector<std::string>() : needed->second) {
      if (seen.count(part.module + "." + other) == 0) {
        throw DataError(
            fmt::format("{}: tensor \"{}.{}\" is missing, beside {}", where, part.module, other, part.name));
      }
    }
  }
  if (is_prompt() && !(prompt.defined() && prompt.dim() == 2)) {
    throw DataError(fmt::format("{}: tensor \"prompt_embeddings\" is missing, or no matrix", where));
  }
}

bool PeftFolder::is_prompt() const { return types().at(type).empty(); }

void PeftFolder::refuse(const std::string& key, const std::string& why) const { config[key].refuse(why); }

}  // namespace whence::detail
