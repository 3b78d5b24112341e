// What adapter_config.json says, as a tuning here. Keys as in PEFT 0.21.2, utils/peft_types.py and tuners/*/config.py.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "whence/text/python_regex.h"
#include "whence/tuning/detail/peft_folder.h"
#include "whence/tuning/peft.h"
#include "whence/tuning/tuning.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

using detail::PeftFolder;

/// Keys that say where an adapter came from, how it was trained, or which layers have one, which the tensors tell too.
const std::set<std::string, std::less<>> kNoEffect = {"auto_mapping",
                                                      "base_model_name_or_path",
                                                      "beta1",
                                                      "beta2",
                                                      "corda_config",
                                                      "deltaT",
                                                      "encoder_dropout",
                                                      "encoder_hidden_size",
                                                      "encoder_num_layers",
                                                      "encoder_reparameterization_type",
                                                      "ensure_weight_tying",
                                                      "eva_config",
                                                      "exclude_modules",
                                                      "fan_in_fan_out",
                                                      "feedforward_modules",
                                                      "hira_dropout",
                                                      "inference_mode",
                                                      "init_ia3_weights",
                                                      "init_weights",
                                                      "layers_pattern",
                                                      "layers_to_transform",
                                                      "loftq_config",
                                                      "lora_dropout",
                                                      "lora_ga_config",
                                                      "megatron_core",
                                                      "modules_to_save",
                                                      "num_attention_heads",
                                                      "num_layers",
                                                      "orth_reg_weight",
                                                      "peft_type",
                                                      "peft_version",
                                                      "prefix_projection",
                                                      "prompt_tuning_init",
                                                      "prompt_tuning_init_text",
                                                      "qalora_group_size",
                                                      "revision",
                                                      "runtime_config",
                                                      "target_modules",
                                                      "target_r",
                                                      "task_type",
                                                      "tfinal",
                                                      "tinit",
                                                      "token_dim",
                                                      "tokenizer_kwargs",
                                                      "tokenizer_name_or_path",
                                                      "total_step"};

/// Those that this file obeys, by type.
const std::map<std::string, std::set<std::string, std::less<>>> kObeyed = {
    {"LORA",
     {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights", "bias", "lora_bias",
      "use_dora"}},
    {"ADALORA", {"r", "init_r", "lora_alpha", "rank_pattern", "bias", "init_lora_weights"}},
    {"IA3", {}},
    {"HIRA", {"r", "rank_pattern"}},
    {"HRA", {"r", "bias"}},
    {"LN_TUNING", {}},
    {"BEFT", {}},
    {"PREFIX_TUNING", {"num_virtual_tokens", "num_transformer_submodules"}},
    {"PROMPT_TUNING", {"num_virtual_tokens", "num_transformer_submodules"}},
    {"P_TUNING", {"num_virtual_tokens", "num_transformer_submodules"}}};

/// null, false, 0, "", [] or {}: what a key has that asks for nothing.
bool asks_for_nothing(const JsonView::Value& value) {
  return value.is_null() || value == false || value == 0 || value == "" || (value.is_structured() && value.empty());
}

void check_keys(const PeftFolder& folder) {
  const auto& obeyed = kObeyed.at(folder.type);
  for (const auto& [key, value] : folder.config.items()) {
    if (kNoEffect.count(key) == 0 && obeyed.count(key) == 0 && !asks_for_nothing(value.json())) {
      value.refuse("none: whence does not compute what it asks for");
    }
  }
}

/// The key's value, or what PEFT takes where it is missing or null.
template <class T>
T value_or(const PeftFolder& folder, const char* key, T otherwise) {
  return folder.config.contains(key) && !folder.config[key].is_null() ? folder.config[key].get<T>() : otherwise;
}

/// The value that the first pattern which matches the module gives it: PEFT's get_pattern_key().
double by_pattern(const PeftFolder& folder, const char* key, const std::string& module, double otherwise) {
  if (!folder.config.contains(key) || folder.config[key].is_null()) {
    return otherwise;
  }
  for (const auto& [pattern, value] : folder.config[key].items()) {
    bool meant = false;
    try {
      meant = matches_whole(fmt::format("(.*\\.)?({})", pattern), module);
    } catch (const DataError& error) {
      value.refuse(fmt::format("a key that can be read: {}", error.what()));
    }
    if (meant) {
      return value.get<double>();
    }
  }
  return otherwise;
}

bool is_named(const std::string& module, const std::string& name) {
  return module == name || module.ends_with("." + name);
}

/// Whether a key means a module, by a regular expression or by a list of names or their ends; nothing where it does not
/// say.
std::optional<bool> is_meant(const PeftFolder& folder, const char* key, const std::string& module) {
  if (!folder.config.contains(key) || asks_for_nothing(folder.config[key].json()) ||
      folder.config[key].json() == "all-linear") {
    return std::nullopt;
  }
  const auto value = folder.config[key];
  if (!value.is_string()) {
    const auto names = value.get<std::vector<std::string>>();
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return is_named(module, name); });
  }
  try {
    return matches_whole(value.get<std::string>(), module);
  } catch (const DataError& error) {
    value.refuse(fmt::format("a regular expression that can be read: {}", error.what()));
  }
}

std::vector<std::string> adapted_modules(const PeftFolder& folder) {
  std::vector<std::string> out;
  for (const auto& part : folder.parts) {
    if (std::find(out.begin(), out.end(), part.module) == out.end()) {
      out.push_back(part.module);
    }
  }
  if (out.empty()) {
    throw DataError(fmt::format("{}: no tensor there is one of {}", folder.where, folder.type));
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// The names that the file gives some of the layers under `key`, where they mean just those; else these in full.
std::string names_of(const PeftFolder& folder, const char* key, const std::vector<std::string>& some,
                     const std::vector<std::string>& all) {
  std::set<std::string> names;
  const auto& config = folder.config.json();
  const auto unset = [&](const char* other) { return !config.contains(other) || asks_for_nothing(config.at(other)); };
  const auto named_among = [](const std::vector<std::string>& modules, const std::string& name) {
    return std::count_if(modules.begin(), modules.end(), [&](const std::string& m) { return is_named(m, name); });
  };
  if (config.contains(key) && config.at(key).is_array() && unset("layers_to_transform") && unset("exclude_modules")) {
    for (const auto& name : config.at(key)) {
      if (name.is_string() && named_among(some, name.get<std::string>()) > 0) {
        names.insert(name.get<std::string>());
      }
    }
    for (const auto& module : all) {
      const bool meant =
          std::any_of(names.begin(), names.end(), [&](const auto& name) { return is_named(module, name); });
      if (meant != (std::find(some.begin(), some.end(), module) != some.end())) {
        names.clear();
        break;
      }
    }
  }
  const auto out = names.empty() ? fmt::format("{}", fmt::join(some, "+")) : fmt::format("{}", fmt::join(names, "+"));
  if (out.find(',') != out.npos) {  // which ends an option
    throw DataError(fmt::format("{}: a layer with a comma in its name, {}", folder.where, out));
  }
  return out;
}
std::string targets_of(const PeftFolder& folder, const std::vector<std::string>& modules) {
  return names_of(folder, "target_modules", modules, modules);
}

/// "a:2+b:3" of the modules whose number is another than `usual`.
std::string exceptions(const std::map<std::string, double>& by_module, double usual) {
  std::vector<std::string> out;
  for (const auto& [module, value] : by_module) {
    if (module.find_first_of(",+:=") != module.npos) {
      throw DataError(fmt::format("a layer called \"{}\", expected a name without , + : and =", module));
    }
    if (value != usual) {
      out.push_back(fmt::format("{}:{}", module, value));
    }
  }
  return fmt::format("{}", fmt::join(out, "+"));
}

/// Starts that change the base's weights, which PEFT makes again where it loads the adapter.
void check_start(const PeftFolder& folder) {
  const char* key = "init_lora_weights";
  if (!folder.config.contains(key) || !folder.config[key].is_string()) {
    return;
  }
  const auto start = folder.config[key].get<std::string>();
  for (const char* plain : {"gaussian", "eva", "orthogonal", "mica", "true", "false"}) {
    if (start == plain) {
      return;
    }
  }
  folder.refuse(
      key, "a start that leaves the base's weights as they are: save with path_initial_model_for_weight_conversion");
}

double alpha_of(const PeftFolder& folder, const std::string& module, std::int64_t rank) {
  const double usual = value_or(folder, "lora_alpha", 8.0), r = static_cast<double>(rank);
  // an adaptive one is scaled by alpha / (the rank that it began with + 1e-5), however many were left out since
  return folder.type == "ADALORA" ? usual * r / (value_or(folder, "init_r", 12.0) + 1e-5)
                                  : by_pattern(folder, "alpha_pattern", module, usual);
}
bool is_stabilised(const PeftFolder& folder) { return folder.type == "LORA" && value_or(folder, "use_rslora", false); }

/// Modules that are a classifier's, which is the stage's head and trained anyway.
const std::vector<std::string> kHeads = {"classifier", "pre_classifier", "score", "bert.pooler"};

/// Parameters of the base that were trained whole: biases, and those of modules_to_save, but for a head's.
std::string also_of(const PeftFolder& folder) {
  const auto biases = value_or<std::string>(folder, "bias", "none");
  const auto saved = folder.config.contains("modules_to_save") && !folder.config["modules_to_save"].is_null()
                         ? folder.config["modules_to_save"].get<std::vector<std::string>>()
                         : std::vector<std::string>();
  std::set<std::string> out;
  if (biases == "all") {
    out.insert("bias");
  }
  for (const auto& name : folder.whole.names()) {
    const auto dotted = "." + name;
    const bool of_head = std::any_of(kHeads.begin(), kHeads.end(), [&](const std::string& module) {
      return dotted.find("." + module + ".") != dotted.npos;
    });
    const bool of_module = !of_head && std::any_of(saved.begin(), saved.end(), [&](const std::string& module) {
      return dotted.find("." + module + ".") != dotted.npos;
    });
    const bool bias = biases != "none" && biases != "all" && name.ends_with(".bias");
    if (of_module || (bias && !of_head)) {
      out.insert(name);
    }
  }
  for (const auto& part : folder.parts) {
    if (part.name == "lora_B.bias" && biases != "all") {
      out.insert(part.module + ".bias");
    }
  }
  return fmt::format("{}", fmt::join(out, "+"));
}

std::string lora_spec(const PeftFolder& folder) {
  check_start(folder);
  const auto modules = adapted_modules(folder);
  std::map<std::string, double> ranks, alphas;
  bool decomposed = false;
  for (const auto& part : folder.parts) {
    if (part.name.starts_with("lora_A") || part.name == "lora_embedding_A") {
      const auto rank = part.value.dim() > 0 ? part.value.size(0) : 0;
      ranks[part.module] = static_cast<double>(rank);
      alphas[part.module] = alpha_of(folder, part.module, rank);
      const double said = by_pattern(folder, "rank_pattern", part.module, value_or(folder, "r", 8.0));
      if (folder.type == "LORA" && said != static_cast<double>(rank)) {
        throw DataError(
            fmt::format("{}: r = {}, but {} of {} has {} rows", folder.where, said, part.name, part.module, rank));
      }
    }
    decomposed = decomposed || part.name == "lora_magnitude_vector";
  }
  if (folder.type == "LORA" && decomposed != value_or(folder, "use_dora", false)) {
    throw DataError(fmt::format("{}: use_dora = {}, but the tensors hold {} lora_magnitude_vector", folder.where,
                                !decomposed, decomposed ? "a" : "no"));
  }
  const auto usual = [](const std::map<std::string, double>& of, double said) {
    const bool held = std::any_of(of.begin(), of.end(), [&](const auto& entry) { return entry.second == said; });
    return of.empty() || held ? said : of.begin()->second;
  };
  const double rank = usual(ranks, static_cast<double>(value_or<std::int64_t>(folder, "r", 8)));
  const double alpha = usual(alphas, value_or(folder, "lora_alpha", 8.0));
  auto out = fmt::format("lora:rank={},alpha={},rank-stabilised={},dora={},targets={}", rank, alpha,
                         is_stabilised(folder), decomposed, targets_of(folder, modules));
  for (const auto& [option, text] :
       {std::pair("ranks", exceptions(ranks, rank)), std::pair("alphas", exceptions(alphas, alpha)),
        std::pair("also", also_of(folder))}) {
    out += text.empty() ? "" : fmt::format(",{}={}", option, text);
  }
  return out;
}

std::string ia3_spec(const PeftFolder& folder) {
  const auto modules = adapted_modules(folder);
  std::vector<std::string> of_inputs;
  for (const auto& part : folder.parts) {
    const auto& scale = part.value;
    if (scale.dim() == 2 && scale.size(0) == 1 && scale.size(1) > 1) {
      of_inputs.push_back(part.module);
    }
  }
  std::sort(of_inputs.begin(), of_inputs.end());
  return fmt::format("ia3:feedforward={},targets={}", names_of(folder, "feedforward_modules", of_inputs, modules),
                     targets_of(folder, modules));
}

/// Of the methods whose rank is one side of each of their tensors called `part`.
std::string ranked_spec(const PeftFolder& folder, const char* tuning, const std::string& part, std::int64_t side) {
  std::int64_t rank = 0;
  for (const auto& [module, name, value] : folder.parts) {
    if (name != part) {
      continue;
    }
    const auto own = value.dim() == 2 ? value.size(side) : 0;
    if (rank > 0 && own != rank) {
      throw DataError(fmt::format("{}: {} of {} has rank {}, others {}, and {} has one for all", folder.where, name,
                                  module, own, rank, tuning));
    }
    rank = own;
  }
  return fmt::format("{}:rank={},targets={}", tuning, rank, targets_of(folder, adapted_modules(folder)));
}

std::string prompt_spec(const PeftFolder& folder) {
  if (value_or<std::int64_t>(folder, "num_transformer_submodules", 1) != 1) {
    folder.refuse("num_transformer_submodules", "1: whence has no models of an encoder and a decoder");
  }
  const auto length = folder.prompt.size(0);
  return folder.type == "PREFIX_TUNING" ? fmt::format("prefix:length={},mlp=0", length)
                                        : fmt::format("prompt:length={}", length);
}

}  // namespace

std::optional<bool> detail::is_target(const PeftFolder& folder, const std::string& module) {
  const auto meant = is_meant(folder, "target_modules", module);
  return meant ? std::optional(*meant && !is_meant(folder, "exclude_modules", module).value_or(false)) : std::nullopt;
}

std::string peft_tuning(const fs::path& directory) {
  const PeftFolder folder(directory);
  check_keys(folder);
  for (const auto& part : folder.parts) {  // PEFT would not load them
    if (!detail::is_target(folder, part.module).value_or(true)) {
      folder.refuse("target_modules",
                    fmt::format("one that means {}, of which {} holds {}", part.module, folder.where, part.name));
    }
  }
  const auto& type = folder.type;
  const auto spec = folder.is_prompt()    ? prompt_spec(folder)
                    : type == "IA3"       ? ia3_spec(folder)
                    : type == "HIRA"      ? ranked_spec(folder, "hira", "hira_A", 0)
                    : type == "HRA"       ? ranked_spec(folder, "hra", "hra_u", 1)
                    : type == "BEFT"      ? "bias:targets=" + targets_of(folder, adapted_modules(folder))
                    : type == "LN_TUNING" ? "norm"
                                          : lora_spec(folder);
  try {
    create<Tuning>(spec);
  } catch (const InvalidArgument& error) {
    throw DataError(fmt::format("{}: {}", (directory / detail::kPeftConfig).string(), error.what()));
  }
  return spec;
}

double detail::lora_scale(const PeftFolder& folder, const std::string& module, std::int64_t rank) {
  const auto r = static_cast<double>(rank);
  return alpha_of(folder, module, rank) / (is_stabilised(folder) ? std::sqrt(r) : r);
}

void check_same_tuning(const std::string& written, const fs::path& directory) {
  const auto held = peft_tuning(directory);
  const auto [method, options] = find_method<Tuning>(written);
  const auto [held_method, held_options] = find_method<Tuning>(held);
  const auto fail = [&](const std::string& what) {
    throw InvalidArgument(fmt::format("tuning = \"{}\", but {} holds {}: leave tuning out, and it is read from there",
                                      written, directory.string(), what));
  };
  if (method != held_method) {
    fail(fmt::format("a {}", held_method->name));
  }
  const auto said = method->options(options), found = method->options(held_options);
  for (std::size_t i = 0; i < said.size(); ++i) {
    const auto& name = found[i].name;
    const bool tells = name == "alphas" || held_options.find(name + "=") != held_options.npos;
    const bool by_tensors = name == "targets" || name == "ranks" || name == "also" || name == "feedforward";
    if (tells && !by_tensors && said[i].value != found[i].value) {
      fail(fmt::format("{} = {}", name, found[i].value));
    }
  }
}

}  // namespace whence
