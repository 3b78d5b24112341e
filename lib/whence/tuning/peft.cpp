// Tensors of PEFT's folders under the names that they have here.
#include "whence/tuning/peft.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "whence/core/error.h"
#include "whence/data/safetensors.h"
#include "whence/models/addition.h"
#include "whence/models/checkpoint.h"
#include "whence/models/language_model.h"
#include "whence/tuning/detail/peft_folder.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

using detail::PeftFolder;
using Tensors = std::map<std::string, at::Tensor>;

/// The name here of a module, or of a parameter of the base: the file's lacks the model's first part ("bert.") where
/// the adapter was trained on a model without a head. Itself where there is none.
std::string name_here(const std::vector<std::string>& known, const std::string& name) {
  std::string longer;
  for (const auto& one : known) {
    if (one == name) {
      return name;
    }
    longer = one.ends_with("." + name) ? one : longer;
  }
  return longer.empty() ? name : longer;
}

/// tuning.MODULE.… of the parameters that a tuning trains.
std::vector<std::string> modules_of(const ParameterSet& trained, const PeftFolder& folder) {
  std::vector<std::string> out;
  for (const auto& name : trained.names()) {
    for (const auto& part : folder.parts) {
      const auto end = "." + part.module + ".";
      const auto at = ("." + name).find(end);
      if (is_added(name) && at != name.npos) {
        out.push_back(name.substr(kAddedPrefix.size(), at + end.size() - 2 - kAddedPrefix.size()));
        break;
      }
    }
  }
  return out;
}

bool is_same(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && at::equal(a.to(b.options()), b);
}

/// What the folder lacks of the head, of the model's own weights: PEFT keeps only what was trained.
void add_own_head(const Model& model, const ParameterSet& expected, Tensors& found) {
  ParameterSet missing;
  const auto head = model.head().of(expected);
  for (std::size_t i = 0; i < head.size(); ++i) {
    if (found.count(head.names()[i]) == 0) {
      missing.add(head.names()[i], head.values()[i]);
    }
  }
  const auto* language = dynamic_cast<const LanguageModel*>(&model);
  if (missing.empty() || language == nullptr) {
    return;
  }
  for (const auto& file : checkpoint_files(language->directory())) {
    if (file.extension() != ".safetensors") {
      continue;  // the index of shards
    }
    const auto stored = read_safetensors(file);
    for (std::size_t i = 0; i < missing.size(); ++i) {
      const auto& name = missing.names()[i];
      for (std::size_t k = 0; k < stored.size() && found.count(name) == 0; ++k) {
        if (name.ends_with("." + stored.names()[k]) && stored.values()[k].sizes() == missing.values()[i].sizes()) {
          found[name] = stored.values()[k];
        }
      }
    }
  }
}

/// A layer of the base that the folder's settings name has nothing in it: PEFT would put a fresh one there.
void check_no_target_is_missing(const PeftFolder& folder, const ParameterSet& parent) {
  const auto given = [&](const char* key) { return folder.config.contains(key) && !folder.config[key].is_null(); };
  if (folder.is_prompt() || given("layers_to_transform")) {
    return;
  }
  const auto saved = given("modules_to_save") ? folder.config["modules_to_save"].get<std::vector<std::string>>()
                                              : std::vector<std::string>();
  for (const auto& name : parent.names()) {
    const std::string module(layer_module(name));
    const bool held = std::any_of(folder.parts.begin(), folder.parts.end(), [&](const auto& part) {
      return part.module == module || module.ends_with("." + part.module);
    });
    const bool whole = std::any_of(saved.begin(), saved.end(), [&](const std::string& one) {
      return fmt::format(".{}.", module).find(fmt::format(".{}.", one)) != std::string::npos;
    });
    if (module != name && !held && !whole && detail::is_target(folder, module).value_or(false)) {
      folder.refuse("target_modules",
                    fmt::format("none that means {}, of which {} holds no tensor", module, folder.where));
    }
  }
}

/// The head is the embedding too: then PEFT computes otherwise before it merges a change of the embedding than after.
void check_not_tied(const PeftFolder& folder, const ParameterSet& expected, const Model& model,
                    const ParameterSet& parent, const std::string& where) {
  const bool own = std::any_of(parent.names().begin(), parent.names().end(), [](const std::string& name) {
    return name.ends_with("lm_head.weight") || name.ends_with("embed_out.weight") || name.ends_with("decoder.weight");
  });
  const bool changes = std::any_of(folder.parts.begin(), folder.parts.end(),
                                   [](const auto& part) { return part.name == "lora_embedding_A"; });
  if (changes && !own && model.head().of(expected).empty()) {
    throw DataError(
        fmt::format("{}: it changes an embedding that is the vocabulary's head too, where peft computes one "
                    "thing with the adapter and another when it is merged: merge it with peft",
                    where));
  }
}

/// tuning.MODULE.PART, or the parameters of the base that a method puts its own in the place of.
Tensors parts_here(const PeftFolder& folder, const ParameterSet& expected, const ParameterSet& parent,
                   const std::string& where) {
  const auto modules = modules_of(expected, folder);
  Tensors found;
  std::map<std::string, std::int64_t> ranks;  // by the module's path there
  for (const auto& [module, name, value] : folder.parts) {
    const auto here = added_name(name_here(modules, module), "");
    const auto of_base = [&](const char* part) {
      return name_here(parent.names(), fmt::format("{}.{}", module, part));
    };
    if (name.starts_with("lora_A")) {
      ranks[module] = value.size(0);
    }
    if (folder.type == "ADALORA") {
      found[here + (name == "lora_E" ? name : name + ".weight")] = value;
    } else if (name == "ln_tuning_layers.weight") {
      found[of_base("weight")] = value;
    } else if (name == "ln_tuning_layers.bias") {
      found[of_base("bias")] = value;
    } else if (name == "beft_bias") {
      found[here + "bias_delta"] = value.flatten();
    } else if (name != "lora_B.bias") {
      found[here + name] = value;
    }
  }
  for (const auto& [module, name, value] : folder.parts) {
    const auto here = added_name(name_here(modules, module), "");
    if (name == "lora_E") {  // A's rows are scaled by it
      auto& a = found[here + "lora_A.weight"];
      if (!a.defined() || a.dim() != 2 || value.numel() != a.size(0)) {
        throw DataError(fmt::format("{}: tensor \"{}.lora_E\" does not fit lora_A", where, module));
      }
      a = a.to(at::kDouble) * value.to(at::kDouble).view({-1, 1});
      found.erase(here + "lora_E");
    } else if (name == "lora_B.bias") {  // s bias of B beside the base's own
      const auto bias = name_here(parent.names(), module + ".bias");
      const auto stored = folder.whole.contains(module + ".bias") ? folder.whole.at(module + ".bias")
                          : parent.contains(bias)                 ? parent.at(bias)
                                                                  : at::Tensor();
      if (!stored.defined() || stored.sizes() != value.sizes() || ranks.count(module) == 0) {
        throw DataError(fmt::format("{}: tensor \"{}.lora_B.bias\" does not fit a bias of the base's", where, module));
      }
      const double scale = detail::lora_scale(folder, module, ranks.at(module));
      found[bias] = stored.to(at::kCPU, at::kDouble) + scale * value.to(at::kDouble);
    }
  }
  return found;
}

/// A prefix [P, 2 layers heads width] at each attention, or a prompt [P, width] at the embedding.
Tensors prompt_here(const PeftFolder& folder, const ParameterSet& expected, const std::string& where) {
  Tensors found;
  std::vector<std::string> modules;  // of attentions, in order
  std::int64_t heads = 0, width = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& name = expected.names()[i];
    if (is_added(name) && name.ends_with(".prompt") && folder.type != "PREFIX_TUNING") {
      found[name] = folder.prompt;
    }
    if (const auto end = name.find(".prefix_key."); end != name.npos && folder.type == "PREFIX_TUNING") {
      if (modules.empty() || modules.back() != name.substr(0, end)) {
        modules.push_back(name.substr(0, end));
        heads = 0;
      }
      ++heads;
      width = expected.values()[i].size(1);
    }
  }
  const auto layers = static_cast<std::int64_t>(modules.size());
  if (folder.type == "PREFIX_TUNING" && layers > 0) {
    if (folder.prompt.size(1) != 2 * layers * heads * width) {
      throw DataError(
          fmt::format("{}: tensor \"prompt_embeddings\" has rows of {}, expected {}: keys and values of {} "
                      "layers, {} heads of {}",
                      where, folder.prompt.size(1), 2 * layers * heads * width, layers, heads, width));
    }
    const auto view = folder.prompt.view({-1, 2 * layers, heads, width});
    for (std::int64_t l = 0; l < layers; ++l) {
      for (std::int64_t g = 0; g < heads; ++g) {
        const auto& module = modules[static_cast<std::size_t>(l)];
        found[fmt::format("{}.prefix_key.{}", module, g)] = view.select(1, 2 * l).select(1, g);
        found[fmt::format("{}.prefix_value.{}", module, g)] = view.select(1, 2 * l + 1).select(1, g);
      }
    }
  }
  return found;
}

}  // namespace

ParameterSet read_peft(const fs::path& directory, const Model& model, const ParameterSet& expected,
                       const ParameterSet& parent, const std::string& where) {
  const PeftFolder folder(directory);
  check_no_target_is_missing(folder, parent);
  check_not_tied(folder, expected, model, parent, where);
  auto found = folder.is_prompt() ? prompt_here(folder, expected, where) : parts_here(folder, expected, parent, where);
  for (std::size_t i = 0; i < folder.whole.size(); ++i) {
    const auto& name = folder.whole.names()[i];
    const auto& value = folder.whole.values()[i];
    if (const auto head = name_here(model.head().of(expected).names(), name); expected.contains(head)) {
      found[head] = value;
      continue;
    }
    const auto base = name_here(parent.names(), name);
    if (!parent.contains(base)) {
      throw DataError(fmt::format("{}: tensor \"{}\" is of no layer of the model or of the stage's head", where, name));
    }
    if (expected.contains(base)) {
      found.try_emplace(base, value);
    } else if (!is_same(value, parent.at(base))) {
      throw DataError(fmt::format(
          "{}: tensor \"{}\" takes the place of the base's, and the stage's tuning does not train that: merge the "
          "adapter with peft, and name the merged model as the stage's checkpoint",
          where, name));
    }
  }
  add_own_head(model, expected, found);
  ParameterSet out;
  for (const auto& [name, value] : found) {
    out.add(name, value);
  }
  return fit_checkpoint(expected, out, where);
}

}  // namespace whence
