#include "inspect_model.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "json.h"
#include "sniff.h"
#include "whence/data/safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/language_model.h"
#include "whence/models/model.h"
#include "whence/text/tokenizer.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

Json inspect_weights(const fs::path& folder) {
  std::int64_t tensors = 0, entries = 0;
  std::set<std::string> dtypes;
  std::vector<std::string> files;
  for (const auto& file : checkpoint_files(folder)) {
    files.push_back(file.filename().string());
    if (file.extension() != ".safetensors") {
      continue;  // the index of shards
    }
    const auto held = read_safetensors(file);
    tensors += static_cast<std::int64_t>(held.size());
    entries += held.entries();
    for (const auto& value : held.values()) {
      dtypes.insert(c10::toString(value.scalar_type()));
    }
  }
  if (files.empty()) {
    return "none: training starts at random";
  }
  return {{"files", fmt::format("{}", fmt::join(files, ", "))},
          {"tensors", tensors},
          {"numbers", entries},
          {"dtype", fmt::format("{}", fmt::join(dtypes, ", "))}};
}

}  // namespace

Json inspect_tokenizer(const fs::path& path) {
  const auto file = fs::is_directory(path) ? path / "tokenizer.json" : path;
  const Tokenizer tokenizer(file);
  const auto described = read_json(file);
  Json out{{"kind", "tokenizer"}, {"model", described.at("model").value("type", "")}, {"tokens", tokenizer.size()}};
  for (const char* role : {"bos", "eos", "unk", "pad", "mask", "cls", "sep"}) {
    if (const auto id = tokenizer.special(role)) {
      out["special"][role] = fmt::format("{} ({})", tokenizer.token(*id), *id);
    }
  }
  const auto tokens_of = [&](const Encoding& encoding) {
    std::vector<std::string> tokens;
    for (const auto id : encoding.ids) {
      tokens.emplace_back(tokenizer.token(id));
    }
    return fmt::format("{}", fmt::join(tokens, " "));
  };
  const std::string sample = "The quick brown fox.";
  try {
    out["example"] = fmt::format("\"{}\" is {}", sample, tokens_of(tokenizer.encode(sample)));
  } catch (const DataError& error) {
    out["example"] = error.what();  // a vocabulary of other words
  }
  if (!tokenizer.notes().empty()) {
    out["notes"] = tokenizer.notes();
  }
  return out;
}

Json inspect_model(const fs::path& folder) {
  const auto config = read_json(folder / "config.json");
  const auto model = open_model_folder(folder, /*ignore_adapter=*/true);  // which the notes say
  const auto& language = dynamic_cast<const LanguageModel&>(*model);
  Json out{{"kind", "model"},
           {"family", config.value("model_type", "")},
           {"predicts", language.causal() ? "the next token" : "hidden tokens"},
           {"layers", language.blocks()},
           {"context", language.context()},
           {"vocabulary", language.vocabulary()}};
  for (const char* key : {"architectures", "hidden_size", "n_embd", "num_attention_heads", "n_head",
                          "num_key_value_heads", "tie_word_embeddings", "dtype", "torch_dtype"}) {
    if (config.contains(key) && !config[key].is_null()) {
      out[key] = config[key].is_array() && config[key].size() == 1 ? Json(config[key][0]) : Json(config[key]);
    }
  }
  out["weights"] = inspect_weights(folder);
  if (const auto classes = language.class_names(folder); !classes.empty()) {
    for (std::size_t c = 0; c < classes.size(); ++c) {
      out["classes"][std::to_string(c)] = classes[c];
    }
  }
  out["tokenizer"] = "none: there is no tokenizer.json";
  if (fs::exists(folder / "tokenizer.json")) {
    out["tokenizer"] = inspect_tokenizer(folder);
    out["tokenizer"].erase("kind");
    const auto size = out["tokenizer"]["tokens"].get<std::int64_t>();
    if (size > language.vocabulary()) {
      out["tokenizer"]["beyond"] = fmt::format("{} tokens that the model does not know", size - language.vocabulary());
    }
  }
  if (!language.notes().empty()) {
    out["notes"] = language.notes();
  }
  return out;
}

Json inspect_exported(const fs::path& file) {
  const auto model = open_exported(file);
  const auto& exported = dynamic_cast<const ExportedModel&>(*model);
  const auto facts = exported.facts();
  const auto theta = exported.read_parameters(file);
  std::set<std::string> dtypes;
  for (const auto& value : theta.values()) {
    dtypes.insert(c10::toString(value.scalar_type()));
  }
  Json out{{"kind", "exported model"}, {"inputs", Json::object()}};
  for (const auto& input : facts.inputs) {
    out["inputs"][input.name] = fmt::format("{} {}", input.shape, input.dtype);
  }
  for (std::size_t i = 0; i < facts.outputs.size(); ++i) {
    const auto& output = facts.outputs[i];
    out["outputs"][output.name.empty() ? "(the only one)" : output.name] =
        fmt::format("{}{}", output.shape, facts.outputs.size() > 1 && i == facts.chosen ? ", which counts" : "");
  }
  out["parameters"] = {
      {"tensors", theta.size()}, {"numbers", theta.entries()}, {"dtype", fmt::format("{}", fmt::join(dtypes, ", "))}};
  if (!facts.last_module.empty()) {
    out["head"] = fmt::format("{}, as head = \"{}\" in [model] says", facts.last_module, facts.last_module);
  }
  if (const auto& classes = exported.class_names(); !classes.empty()) {
    for (std::size_t c = 0; c < classes.size(); ++c) {
      out["classes"][std::to_string(c)] = classes[c];
    }
  }
  if (!exported.channel_means().empty()) {
    out["preprocessing"]["mean"] = exported.channel_means();
  }
  if (!exported.channel_deviations().empty()) {
    out["preprocessing"]["std"] = exported.channel_deviations();
  }
  if (model->takes_texts()) {
    out["vocabulary"] = exported.vocabulary();
    out["context"] = exported.context();
  }
  for (const auto& [word, count] : facts.layers) {
    out["layers"][word] = count;
  }
  if (facts.why_no_layers.empty()) {
    out["layers"]["own"] = fmt::format("{:.1f} % of the parameters' entries", 100 * (1 - facts.copied_share));
    if (!facts.copied.empty()) {
      out["layers"]["by copies"] = facts.copied;
    }
  } else {
    out["layers"] = "none: gradients of examples come from double backward";
  }
  if (!exported.notes().empty()) {
    out["notes"] = exported.notes();
  }
  return out;
}

}  // namespace whence::cli
