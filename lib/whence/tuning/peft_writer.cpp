// Tunings in PEFT's form: what peft.cpp reads.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <set>

#include "whence/core/error.h"
#include "whence/core/output.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/models/language_model.h"
#include "whence/tuning/detail/added_tuning.h"
#include "whence/tuning/detail/peft_folder.h"
#include "whence/tuning/peft.h"

namespace whence {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

constexpr const char* kInBase = "base_model.model.";

const std::map<std::string, std::string, std::less<>>& written_types() {
  static const std::map<std::string, std::string, std::less<>> table = {{"lora", "LORA"},
                                                                        {"ia3", "IA3"},
                                                                        {"hira", "HIRA"},
                                                                        {"hra", "HRA"},
                                                                        {"bias", "BEFT"},
                                                                        {"norm", "LN_TUNING"},
                                                                        {"prefix", "PREFIX_TUNING"},
                                                                        {"prompt", "PROMPT_TUNING"}};
  return table;
}

/// A whole number as one.
json number(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? json(static_cast<std::int64_t>(value)) : json(value);
}

/// A regular expression that matches a name alone.
std::string escaped(const std::string& name) {
  std::string out;
  for (const char c : name) {
    out += std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' ? fmt::format("\\{}", c) : std::string(1, c);
  }
  return out;
}

/// The module of a parameter, and what it is there.
std::pair<std::string, std::string> module_of(const std::string& name) {
  const auto dot = std::min(name.rfind('.'), name.size());
  return {name.substr(0, dot), name.substr(std::min(dot + 1, name.size()))};
}

class Writer {
 public:
  Writer(const std::string& tuning, const Model& model, const ParameterSet& trained, const ParameterSet& parent)
      : spec_(tuning), model_(model), trained_(trained), parent_(parent) {
    const auto [method, text] = find_method<Tuning>(tuning);
    for (const auto& option : method->options(text)) {
      options_[option.name] = option.value;
    }
    type_ = written_types().at(method->name);
  }

  PeftAdapter run() && {
    config_["peft_type"] = type_;
    if (type_ == "PREFIX_TUNING" || type_ == "PROMPT_TUNING") {
      write_prompt();
    } else if (type_ == "LN_TUNING") {
      write_norms();
    } else {
      write_parts();
    }
    write_head();
    if (!targets_.empty()) {
      config_["target_modules"] = targets_;
    }
    config_["modules_to_save"] = saved_.empty() ? json() : json(saved_);
    return {std::move(config_), std::move(tensors_)};
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw InvalidArgument(fmt::format(
        "tuning = \"{}\": {}, so that it has no place in a folder of PEFT's: name a .safetensors file as checkpoint",
        spec_, what));
  }
  double option(const char* name) const { return std::stod(options_.at(name)); }
  bool flag(const char* name) const { return options_.at(name) == "true"; }

  void write_parts() {
    for (std::size_t i = 0; i < trained_.size(); ++i) {
      const auto& name = trained_.names()[i];
      const auto& value = trained_.values()[i];
      if (!is_added(name)) {
        continue;
      }
      if (name.ends_with(".bias_delta")) {
        const auto module = module_of(name).first.substr(kAddedPrefix.size());
        if (!parent_.contains(module + ".bias")) {
          fail(fmt::format("{} has no bias", module));
        }
        add(module, "beft_bias", value.view({1, -1}));
        continue;
      }
      bool known = false;
      for (const auto& part : detail::peft_parts(type_)) {
        if (name.ends_with("." + part)) {
          add(name.substr(kAddedPrefix.size(), name.size() - part.size() - 1 - kAddedPrefix.size()), part, value);
          known = true;
          break;
        }
      }
      if (!known) {
        fail(fmt::format("PEFT has no {}", name));
      }
    }
    if (transposed_ && (type_ == "HRA" || type_ == "BEFT")) {
      fail(fmt::format("PEFT's {} is for layers whose weights lie as [out, in]", type_));
    }
    if (type_ != "HRA" && type_ != "BEFT") {
      config_["fan_in_fan_out"] = transposed_;
    }
    if (type_ == "LORA") {
      write_lora();
    } else if (type_ == "IA3") {
      config_["feedforward_modules"] = json::array();
      for (const auto& module : targets_) {
        if (detail::is_among(module, options_.at("feedforward"))) {
          config_["feedforward_modules"].push_back(module);
        }
      }
    } else if (type_ == "HIRA" || type_ == "HRA") {
      config_["r"] = number(option("rank"));
    }
  }

  void add(const std::string& module, const std::string& part, const at::Tensor& value) {
    targets_.insert(module);
    tensors_.add(fmt::format("{}{}.{}", kInBase, module, part), value);
    const auto name = parent_.contains(module + ".weight") ? module + ".weight" : module;
    if (!parent_.contains(name) || parent_.at(name).dim() != 2 || part == "lora_embedding_A" ||
        part == "lora_embedding_B") {
      return;
    }
    const auto& weight = parent_.at(name);
    const bool of_outputs = part == "lora_B.weight" || part == "hira_B" || part == "lora_magnitude_vector" ||
                            part == "beft_bias" || (part == "ia3_l" && value.size(1) == 1);
    const auto side = part == "hra_u" || (of_outputs && part != "beft_bias") ? value.size(0) : value.size(1);
    transposed_ = transposed_ || weight.size(of_outputs ? 0 : 1) != side;
  }

  void write_lora() {
    const double rank = option("rank"), alpha = option("alpha");
    config_["r"] = number(rank);
    config_["lora_alpha"] = number(alpha);
    config_["use_rslora"] = flag("rank-stabilised");
    config_["use_dora"] = flag("dora");
    config_["rank_pattern"] = config_["alpha_pattern"] = json::object();
    for (const auto& [option, key, usual] :
         {std::tuple("ranks", "rank_pattern", rank), std::tuple("alphas", "alpha_pattern", alpha)}) {
      for (const auto& module : targets_) {
        for (const auto& [layer, value] : detail::numbers_of_layers("lora", option, options_.at(option))) {
          if (detail::is_among(module, layer)) {  // the first that does counts
            if (value != usual) {
              config_[key][escaped(module)] = number(value);
            }
            break;
          }
        }
      }
    }
    if (is_tied() && std::any_of(tensors_.names().begin(), tensors_.names().end(),
                                 [](const std::string& name) { return name.ends_with(".lora_embedding_A"); })) {
      fail("the embedding is the vocabulary's head too, which PEFT changes only where it merges");
    }
    write_whole();
  }

  /// Whether the vocabulary's head is the embedding.
  bool is_tied() const {
    return model_.head().of(trained_).empty() &&
           std::none_of(parent_.names().begin(), parent_.names().end(), [](const std::string& name) {
             return name.ends_with("lm_head.weight") || name.ends_with("embed_out.weight") ||
                    name.ends_with("decoder.weight");
           });
  }

  /// Parameters of the body that were trained whole.
  void write_whole() {
    std::set<std::string> biases, all, of_targets;
    for (const auto& name : parent_.names()) {
      const auto [module, part] = module_of(name);
      if (part == "bias") {
        all.insert(name);
        if (targets_.count(module) > 0) {
          of_targets.insert(name);
        }
      }
    }
    for (const auto& name : trained_.names()) {
      if (!parent_.contains(name)) {
        continue;
      }
      const auto [module, part] = module_of(name);
      if (part == "bias") {
        biases.insert(name);
        tensors_.add(fmt::format("{}{}.{}bias", kInBase, module, targets_.count(module) > 0 ? "base_layer." : ""),
                     trained_.at(name));
      } else if (targets_.count(module) > 0) {
        fail(fmt::format("{} is trained whole and has a change of low rank", name));
      } else {
        saved_.insert(module);
        tensors_.add(kInBase + name, trained_.at(name));
      }
    }
    for (const auto& module : saved_) {  // PEFT keeps modules, not parameters
      if (const auto bias = module + ".bias"; parent_.contains(bias) && biases.count(bias) == 0) {
        tensors_.add(kInBase + bias, parent_.at(bias));
      }
    }
    std::erase_if(biases, [&](const std::string& name) { return saved_.count(module_of(name).first) > 0; });
    const bool every = !biases.empty() && std::all_of(all.begin(), all.end(), [&](const std::string& name) {
      return biases.count(name) > 0 || saved_.count(module_of(name).first) > 0;
    });
    if (!biases.empty() && !every && biases != of_targets) {
      fail("PEFT trains all biases or those of the changed layers");
    }
    config_["bias"] = biases.empty() ? "none" : every ? "all" : "lora_only";
  }

  void write_norms() {
    for (const auto& name : trained_.names()) {
      if (parent_.contains(name)) {
        const auto [module, part] = module_of(name);
        targets_.insert(module);
        tensors_.add(fmt::format("{}{}.ln_tuning_layers.{}", kInBase, module, part), trained_.at(name));
      }
    }
  }

  void write_prompt() {
    TensorList keys, values, parts;  // of each head; of each layer
    std::string module;
    std::int64_t heads = 0;
    for (std::size_t i = 0; i < trained_.size(); ++i) {
      const auto& name = trained_.names()[i];
      if (name.starts_with(added_name("prefix", ""))) {
        fail("a prefix that is made by a network");
      }
      if (name.ends_with(".prompt")) {
        tensors_.add("prompt_embeddings", trained_.values()[i]);
      } else if (const auto end = name.find(".prefix_key."); end != name.npos) {
        heads = name.substr(0, end) == module ? heads + 1 : 1;
        module = name.substr(0, end);
        keys.push_back(trained_.values()[i]);
        values.push_back(trained_.at(fmt::format("{}.prefix_value.{}", module, heads - 1)));
      }
    }
    if (!keys.empty()) {
      for (std::size_t begin = 0; begin < keys.size(); begin += static_cast<std::size_t>(heads)) {
        for (const auto* of : {&keys, &values}) {
          const auto first = of->begin() + static_cast<std::ptrdiff_t>(begin);
          parts.push_back(at::cat(TensorList(first, first + heads), 1));
        }
      }
      tensors_.add("prompt_embeddings", at::cat(parts, 1));
    }
    if (tensors_.empty()) {
      fail("of length 0");
    }
    const auto& written = tensors_.values().front();
    const auto& language = dynamic_cast<const LanguageModel&>(model_);
    config_["num_virtual_tokens"] = written.size(0);
    config_["num_layers"] = language.blocks();
    config_["num_transformer_submodules"] = 1;
    if (type_ == "PREFIX_TUNING") {
      config_["token_dim"] = heads * keys.front().size(1);
      config_["num_attention_heads"] = heads;
      config_["prefix_projection"] = false;
      config_["encoder_hidden_size"] = config_["token_dim"];
    } else {
      config_["token_dim"] = written.size(1);
      config_["prompt_tuning_init"] = "RANDOM";
    }
  }

  /// The stage's own: whole modules, among them the classifiers that PEFT always lists.
  void write_head() {
    const auto head = model_.head().of(trained_);
    const auto* language = dynamic_cast<const LanguageModel*>(&model_);
    config_["task_type"] = !head.empty()                               ? json("SEQ_CLS")
                           : language != nullptr && language->causal() ? json("CAUSAL_LM")
                                                                       : json();
    if (head.empty()) {
      return;
    }
    saved_.insert({"classifier", "score"});
    const char* before = type_ == "PREFIX_TUNING" || type_ == "PROMPT_TUNING" ? "base_model." : kInBase;
    for (std::size_t i = 0; i < head.size(); ++i) {
      const auto name = model_.head().unqualified(head.names()[i]);
      tensors_.add(before + name, head.values()[i]);
      if (!name.starts_with("classifier.") && !name.starts_with("score.")) {
        saved_.insert(module_of(name).first);
      }
    }
  }

  std::string spec_, type_;
  const Model& model_;
  const ParameterSet &trained_, &parent_;
  std::map<std::string, std::string> options_;
  json config_ = json::object();
  ParameterSet tensors_;
  std::set<std::string> targets_, saved_;
  bool transposed_ = false;
};

}  // namespace

bool has_peft_type(const std::string& tuning) {
  return written_types().count(find_method<Tuning>(tuning).first->name) > 0;
}

PeftAdapter to_peft(const std::string& tuning, const Model& model, const ParameterSet& trained,
                    const ParameterSet& parent, const fs::path& base) {
  auto out = Writer(tuning, model, trained, parent).run();
  out.config["base_model_name_or_path"] = base.empty() ? json() : json(base.string());
  out.config["inference_mode"] = true;
  return out;
}

void check_written(const PeftAdapter& adapter, const fs::path& directory) {
  const auto path = directory / detail::kPeftConfig;
  const auto held = read_json<nlohmann::json>(path);
  for (const auto& [key, value] : adapter.config.items()) {
    if (held.contains(key) && held[key] != value && key != "base_model_name_or_path") {
      throw InvalidArgument(
          fmt::format("but {} says {} = {}, expected {}", path.string(), key, json_text(held[key]), json_text(value)));
    }
  }
}

void write_peft(const fs::path& directory, const PeftAdapter& adapter, std::map<std::string, std::string> metadata) {
  if (fs::exists(directory) && !fs::is_empty(directory) &&
      !(is_adapter(directory) && is_whence_checkpoint(directory))) {
    throw InvalidArgument(fmt::format(
        "{}: holds files that are no adapter of whence's, and is left as it is: name another folder, or an empty one",
        directory.string()));
  }
  TensorList values;
  for (const auto& value : adapter.tensors.values()) {
    values.push_back(value.detach().to(at::kCPU).contiguous());
  }
  metadata["format"] = "pt";
  metadata["whence"] = "1";
  write_folder_atomically(directory, [&](const fs::path& part) {
    write_text(part / detail::kPeftConfig, json_text(adapter.config, 2) + "\n");
    write_sealed(part / detail::kPeftWeights, adapter.tensors.with(std::move(values)), metadata);
  });
}

}  // namespace whence
