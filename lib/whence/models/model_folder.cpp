#include "whence/models/detail/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>
#include <optional>
#include <set>

#include "whence/core/error.h"
#include "whence/core/json.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kAdapter = "adapter_config.json";

std::string in_lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

bool ends_with_any(const std::string& name, std::initializer_list<const char*> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](const char* end) { return name.ends_with(end); });
}

/// A download that has not ended, by its name.
bool is_unfinished(const std::string& name) {
  return ends_with_any(name, {".part", ".partial", ".incomplete", ".crdownload", ".download", ".tmp"});
}
bool is_packed(const std::string& name) {
  return ends_with_any(name, {".gz", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z"});
}
bool is_index(const std::string& name) { return name.ends_with(".index.json"); }

/// What else trainers and others leave beside a model, in the same formats.
bool is_no_model(const std::string& name) {
  static constexpr std::array kBeginnings = {"training_args", "optimizer",     "scheduler",     "scaler",
                                             "rng_state",     "adapter_model", "trainer_state", "tokenizer"};
  return std::any_of(kBeginnings.begin(), kBeginnings.end(),
                     [&](const char* begin) { return name.starts_with(begin); });
}

/// Whether a file seems to hold weights: by its name, or as one too large for what else lies in such folders.
bool is_weights(const fs::path& path) {
  constexpr std::uintmax_t kLarge = 1 << 20;
  auto name = in_lower_case(path.filename().string());
  if (is_no_model(name)) {
    return false;
  }
  while (is_unfinished(name) || is_packed(name)) {
    name.resize(name.rfind('.'));
  }
  if (ends_with_any(name, {".safetensors", ".bin",    ".pt",       ".pth",     ".th",      ".ot",     ".ckpt",
                           ".h5",          ".hdf5",   ".keras",    ".pb",      ".msgpack", ".gguf",   ".ggml",
                           ".onnx",        ".npz",    ".npy",      ".pkl",     ".pickle",  ".joblib", ".tflite",
                           ".distcp",      ".params", ".pdparams", ".mlmodel", ".mar",     ".nemo",   ".index"}) ||
      name.find(".ckpt.") != name.npos || is_index(name)) {
    return true;
  }
  std::error_code unreadable;
  const auto size = fs::file_size(path, unreadable);
  return !unreadable && size >= kLarge &&
         !ends_with_any(name, {".json", ".jsonl",   ".ndjson", ".txt",   ".md",  ".csv",  ".tsv",  ".log",
                               ".py",   ".jinja",   ".model",  ".vocab", ".bpe", ".spm",  ".yaml", ".yml",
                               ".toml", ".parquet", ".arrow",  ".png",   ".jpg", ".jpeg", ".svg",  ".pdf"});
}

/// Weights in the folder or one below it that are not where they are read from; the most telling one.
std::optional<fs::path> other_weights(const fs::path& directory) {
  std::vector<fs::path> here, below;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.is_directory()) {
      std::error_code unreadable;
      for (const auto& inner : fs::directory_iterator(entry.path(), unreadable)) {
        if (!inner.is_directory() && is_weights(inner.path())) {
          below.push_back(inner.path());
        }
      }
    } else if (is_weights(entry.path())) {
      here.push_back(entry.path());
    }
  }
  auto& found = here.empty() ? below : here;
  std::sort(found.begin(), found.end());
  return found.empty() ? std::nullopt : std::optional(found.front());
}

/// The class of transformers that reads the folder with its head.
std::string auto_class(const fs::path& directory) {
  std::string architecture;
  try {
    const auto config = read_json(directory / "config.json");
    architecture = config.at("architectures").at(0).get<std::string>();
  } catch (const std::exception&) {
    return "AutoModel";
  }
  for (const auto& [ending, name] :
       {std::pair("ForCausalLM", "AutoModelForCausalLM"), std::pair("LMHeadModel", "AutoModelForCausalLM"),
        std::pair("ForMaskedLM", "AutoModelForMaskedLM"),
        std::pair("ForSequenceClassification", "AutoModelForSequenceClassification")}) {
    if (architecture.ends_with(ending)) {
      return name;
    }
  }
  return "AutoModel";
}

/// A command that makes DIRECTORY-safetensors, as far as one does.
std::string how_to_convert(const fs::path& directory, const fs::path& weights) {
  const auto name = weights.filename().string();
  const auto lower = in_lower_case(name), ending = fs::path(lower).extension().string();
  if (is_unfinished(lower)) {
    return "a download that has not ended: download it again";
  }
  if (is_packed(lower)) {
    return "unpack it";
  }
  if (is_index(lower)) {
    return "an index names the files of a model, which are missing: download them (the .safetensors ones, where both "
           "kinds are offered)";
  }
  if (ending == ".safetensors" && name.find("-of-") != name.npos) {
    return fmt::format("it is one part of a model, and the index of the parts, {}, is missing: download it", kIndex);
  }
  if (ending == ".safetensors") {
    return fmt::format("rename it to {} if it is the whole model in transformers' names", kWeights);
  }
  std::string from, wants;
  if (ending == ".gguf") {
    from = fmt::format(", gguf_file='{}'", name);
  } else if (ending == ".h5" || name.find(".ckpt.") != name.npos) {
    from = ", from_tf=True";
    wants = " (with transformers 4 and tensorflow)";
  } else if (ending == ".msgpack") {
    from = ", from_flax=True";
    wants = " (with transformers 4 and flax)";
  } else if (!name.starts_with("pytorch_model") || ending != ".bin") {
    return fmt::format("where it was trained, save_pretrained(\"{}-safetensors\") writes what is read",
                       directory.string());
  }
  const bool reads_texts = fs::exists(directory / "tokenizer.json") || fs::exists(directory / "tokenizer_config.json");
  return fmt::format(
      "convert them{}: python3 -c \"import transformers as t; d = '{}'; o = d + '-safetensors'; "
      "t.{}.from_pretrained(d{}).save_pretrained(o){}\"",
      wants, directory.string(), auto_class(directory), from,
      reads_texts ? "; t.AutoTokenizer.from_pretrained(d).save_pretrained(o)" : "");
}

std::vector<fs::path> shards_of(const fs::path& directory) {
  const auto index = directory / kIndex;
  const auto table = read_json(index);
  if (!table.is_object() || !table.contains("weight_map") || !table["weight_map"].is_object()) {
    throw DataError(fmt::format("{}: no weight_map", index.string()));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : table["weight_map"].items()) {
    if (!file.is_string() || fs::path(file.get<std::string>()).has_parent_path()) {
      throw DataError(
          fmt::format("{}: tensor \"{}\" is in {}, expected a file's name", index.string(), tensor, brief(file)));
    }
    names.insert(file.get<std::string>());
  }
  std::vector<fs::path> out;
  for (const auto& name : names) {
    if (!fs::exists(directory / name)) {
      const auto held = std::find_if(table["weight_map"].begin(), table["weight_map"].end(),
                                     [&, name = name](const auto& file) { return file == name; });
      throw DataError(fmt::format("{}: the shard {}, which holds \"{}\", is missing: copy or download it",
                                  index.string(), name, held.key()));
    }
    out.push_back(directory / name);
  }
  return out;
}

}  // namespace

std::vector<fs::path> weight_files(const fs::path& directory) {
  if (fs::exists(directory / kWeights)) {
    return {directory / kWeights};
  }
  if (fs::exists(directory / kIndex)) {
    return shards_of(directory);
  }
  if (!fs::is_directory(directory)) {
    return {};
  }
  if (const auto other = other_weights(directory)) {
    if (!fs::exists(*other)) {
      throw DataError(fmt::format("{}: a link to {}, which is not there: download it again", other->string(),
                                  fs::read_symlink(*other).string()));
    }
    throw DataError(fmt::format("{}: the weights are in {}, and {} is not there; {}", directory.string(),
                                other->lexically_relative(directory).string(), kWeights,
                                how_to_convert(directory, *other)));
  }
  if (fs::exists(directory / kAdapter)) {
    check_no_adapter(directory);
  }
  return {};
}

bool has_adapter(const fs::path& directory) {
  return fs::exists(directory / kAdapter) || fs::exists(directory / "adapter_model.safetensors") ||
         fs::exists(directory / "adapter_model.bin");
}

bool is_adapter(const fs::path& directory) {
  return has_adapter(directory) && !fs::exists(directory / "config.json") && !fs::exists(directory / kWeights) &&
         !fs::exists(directory / kIndex);
}

void check_no_adapter(const fs::path& directory, const std::string& otherwise) {
  if (!has_adapter(directory)) {
    return;
  }
  std::string kind = "an adapter", base, call = "AutoPeftModel";
  if (fs::exists(directory / kAdapter)) {
    const auto config = read_json(directory / kAdapter);
    const auto text = [&](const char* key) {
      return config.is_object() && config.contains(key) && config[key].is_string() ? config[key].get<std::string>()
                                                                                   : "";
    };
    kind = text("peft_type").empty() ? kind : fmt::format("an adapter ({})", text("peft_type"));
    base = text("base_model_name_or_path");
    call += text("task_type") == "CAUSAL_LM" ? "ForCausalLM"
            : text("task_type") == "SEQ_CLS" ? "ForSequenceClassification"
                                             : "";
  }
  throw DataError(fmt::format(
      "{0}: {1} lies there (adapter_model.*{2}), and the model is not complete without it: move the adapter_* files to "
      "a folder of their own, which a stage of this model names as its checkpoint, or merge it: python3 -c \"import "
      "peft; "
      "peft.{3}.from_pretrained('{0}').merge_and_unload().save_pretrained('{0}-merged')\"{4}",
      directory.string(), kind, base.empty() ? "" : ", of " + base, call, otherwise));
}

}  // namespace whence::detail
