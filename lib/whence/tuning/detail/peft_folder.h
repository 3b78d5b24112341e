#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "whence/core/json.h"
#include "whence/core/parameters.h"

namespace whence::detail {

inline constexpr const char* kPeftConfig = "adapter_config.json";
inline constexpr const char* kPeftWeights = "adapter_model.safetensors";

/// What a type that is read adds at a module: "lora_A.weight". None: it puts something before the tokens.
const std::vector<std::string>& peft_parts(const std::string& type);

/// A folder of PEFT's, its tensors sorted by what they are.
struct PeftFolder {
  /// A tensor that the method added at a module, by the module's path in the base model: "lora_A.weight".
  struct Part {
    std::string module, name;
    at::Tensor value;
  };

  /// Throws DataError, in a line, for what is not of the format: of a tensor also where it is not finite, or lacks its
  /// partner (lora_A of a lora_B).
  explicit PeftFolder(const std::filesystem::path& directory);

  std::string where;  ///< The file of tensors, for messages.
  JsonView config;
  std::string type;  ///< "LORA"
  std::vector<Part> parts;
  /// What takes the place of the base's parameters, or is a head's, by their names in the base model.
  ParameterSet whole;
  at::Tensor prompt;       ///< prompt_embeddings of the methods that put something before the tokens.
  bool is_prompt() const;  ///< Whether it is one of them.

  /// Throws DataError that names the file of settings, the key and its value.
  [[noreturn]] void refuse(const std::string& key, const std::string& why) const;
};

/// Whether target_modules and exclude_modules mean a module; nothing where target_modules names none. Of which layers
/// (layers_to_transform) is not asked.
std::optional<bool> is_target(const PeftFolder& folder, const std::string& module);

/// s of W + s B A, of a LORA's module, whose rank is `rank`.
double lora_scale(const PeftFolder& folder, const std::string& module, std::int64_t rank);

}  // namespace whence::detail
