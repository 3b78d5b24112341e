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
                                                      "ensure_weight_tying",
                                                      "eva_config",
                                                      "exclude_modules",
                                                      "fan_in_fan_out",
                                                      "feedforward_modules",
                                                      "hira_dropout",
                                                      "inference_mode",
                                                      "init_ia3_weights",
                                                      "init_r",
                                                      "init_weights",
                                                      "layers_pattern",
                                                      "layers_to_transform",
                                                      "loftq_config",
                                                      "lora_dropout",
                                                      "lora_ga_config",
                                                      "megatron_core",
                                                      "modules_to_save",
                                                      "orth_reg_weight",
                                                      "peft_type",
                                                      "peft_version",
                                                      "qalora_group_size",
                                                      "revision",
                                                      "runtime_config",
                                                      "target_modules",
                                                      "target_r",
                                                      "task_type",
                                                      "tfinal",
                                                      "tinit",
                                                      "total_step"};

/// Those that this file obeys, by type.
const std::map<std::string, std::set<std::string, std::less<>>> kObeyed = {
    {"LORA",
     {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights", "bias", "lora_bias"}},
    {"ADALORA", {"r", "lora_alpha", "rank_pattern", "init_lora_weights"}}};

/// null, false, 0, "", [] or {}: what a key has that asks for nothing.
bool asks_for_nothing(const JsonView::Value& value) {
  return value.is_null() || value == false || value == 0 || value == "" || (value.is_structured() && value.empty());
}

void check_keys(const PeftFolder& folder) {
  const auto& obeyed = kObeyed.at(folder.type);
  for (const auto& [key, value] : folder.config.items()) {
    if (kNoEffect.count(key) == 0 && obeyed.count(key) == 0 && !asks_for_nothing(value.json())) {
      value.refuse("nothing: whence does not compute what it asks for");
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
    try {
      if (matches_whole(fmt::format("(.*\\.)?({})", pattern), module)) {
        return value.get<double>();
      }
    } catch (const DataError& error) {
      value.refuse(fmt::format("a pattern that can be read: {}", error.what()));
    }
  }
  return otherwise;
}

bool is_named(const std::string& module, const std::string& name) {
  return module == name || module.ends_with("." + name);
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

/// The names that the file gives the layers, where they mean those that have tensors; else these, in full.
std::string targets_of(const PeftFolder& folder, const std::vector<std::string>& modules) {
  std::vector<std::string> names;
  const auto& config = folder.config.json();
  const auto given = config.find("target_modules");
  const auto unset = [&](const char* key) { return !config.contains(key) || asks_for_nothing(config.at(key)); };
  if (given != config.end() && given->is_array() && unset("layers_to_transform") && unset("exclude_modules")) {
    for (const auto& name : *given) {
      if (name.is_string() && std::any_of(modules.begin(), modules.end(),
                                          [&](const std::string& m) { return is_named(m, name.get<std::string>()); })) {
        names.push_back(name.get<std::string>());
      }
    }
    const bool all = std::all_of(modules.begin(), modules.end(), [&](const std::string& module) {
      return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return is_named(module, name); });
    });
    names = all ? names : std::vector<std::string>{};
  }
  std::sort(names.begin(), names.end());
  const auto out = fmt::format("{}", fmt::join(names.empty() ? modules : names, "+"));
  if (out.find(',') != out.npos) {  // which ends an option
    throw DataError(fmt::format("{}: a layer with a comma in its name, {}", folder.where, out));
  }
  return out;
}

/// "a:2+b:3" of the modules whose number is another than `usual`.
std::string exceptions(const std::map<std::string, double>& by_module, double usual) {
  std::vector<std::string> out;
  for (const auto& [module, value] : by_module) {
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

std::string lora_spec(const PeftFolder& folder) {
  check_start(folder);
  const bool adaptive = folder.type == "ADALORA";
  const bool stabilised = !adaptive && value_or(folder, "use_rslora", false);
  const auto modules = adapted_modules(folder);
  const double usual_rank = static_cast<double>(value_or<std::int64_t>(folder, "r", 8));
  const double usual_alpha = value_or(folder, "lora_alpha", 8.0);
  std::map<std::string, double> ranks, alphas;
  bool decomposed = false;
  for (const auto& part : folder.parts) {
    if (part.name.starts_with("lora_A") || part.name == "lora_embedding_A") {
      const auto rank = part.value.dim() > 0 ? static_cast<double>(part.value.size(0)) : 0;
      ranks[part.module] = rank;
      // an adaptive one is scaled by alpha / (rank + 1e-5)
      alphas[part.module] =
          adaptive ? usual_alpha * rank / (rank + 1e-5) : by_pattern(folder, "alpha_pattern", part.module, usual_alpha);
    }
    decomposed = decomposed || part.name == "lora_magnitude_vector";
  }
  const auto commonest = [](const std::map<std::string, double>& of, double usual) {
    const bool held = std::any_of(of.begin(), of.end(), [&](const auto& entry) { return entry.second == usual; });
    return of.empty() || held ? usual : of.begin()->second;
  };
  const double rank = commonest(ranks, usual_rank), alpha = commonest(alphas, usual_alpha);
  auto out = fmt::format("lora:rank={},alpha={},rank-stabilised={},dora={},targets={}", rank, alpha, stabilised,
                         decomposed, targets_of(folder, modules));
  if (const auto others = exceptions(ranks, rank); !others.empty()) {
    out += ",ranks=" + others;
  }
  if (const auto others = exceptions(alphas, alpha); !others.empty()) {
    out += ",alphas=" + others;
  }
  return out;
}

}  // namespace

std::string peft_tuning(const fs::path& directory) {
  const PeftFolder folder(directory);
  check_keys(folder);
  return lora_spec(folder);
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
    const bool tells = held_options.find(name + "=") != held_options.npos;
    if (tells && name != "targets" && said[i].value != found[i].value) {
      fail(fmt::format("{} = {}", name, found[i].value));
    }
  }
}

}  // namespace whence
