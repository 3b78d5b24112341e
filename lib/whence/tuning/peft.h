#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "whence/core/parameters.h"
#include "whence/models/model.h"

namespace whence {

// Adapters as PEFT (huggingface.co/docs/peft, 0.21) writes them: a folder with adapter_config.json and
// adapter_model.safetensors. docs/models.md has the table of what is read and written.

/// The tuning that such a folder holds, as a spec: "lora:rank=8,alpha=16,targets=q_proj+v_proj". The layers are those
/// that have tensors. Throws DataError, naming the file, for a type or a key with a value that whence does not compute,
/// for weights as a pickle alone, and for what is not of the format.
std::string peft_tuning(const std::filesystem::path& directory);
/// Throws InvalidArgument where a tuning that was written down is another than that of the folder, naming the option.
/// Layers are compared when tensors are read.
void check_same_tuning(const std::string& written, const std::filesystem::path& directory);

/// What such a folder holds of `expected`, the parameters that its tuning trains, in their dtype and on their device.
/// `parent` is the body that it was trained on; what the folder lacks of the head is the model's own. Throws DataError
/// that begins with `where` and names the tensor: one is missing, superfluous, of another shape, not finite, or takes
/// the place of the base's in a way that the tuning cannot say.
ParameterSet read_peft(const std::filesystem::path& directory, const Model& model, const ParameterSet& expected,
                       const ParameterSet& parent, const std::string& where);

/// Whether PEFT has a type for what a tuning adds: then a folder is written as such an adapter.
bool has_peft_type(const std::string& tuning);

/// What such a folder is to hold.
struct PeftAdapter {
  nlohmann::json config;
  ParameterSet tensors;
};

/// `trained` of a tuning that has a type, on the body `parent`, in PEFT's form; `base` is the folder of the base, empty
/// where that is in none. Throws InvalidArgument, with what can be typed instead, for what PEFT cannot say.
PeftAdapter to_peft(const std::string& tuning, const Model& model, const ParameterSet& trained,
                    const ParameterSet& parent, const std::filesystem::path& base);

/// Throws InvalidArgument where adapter_config.json of a folder that whence wrote says otherwise than `adapter`, naming
/// the key, but of the base's place.
void check_written(const PeftAdapter& adapter, const std::filesystem::path& directory);

/// The folder appears complete. `metadata` stands in the weights' file, which says that whence wrote it. Throws
/// InvalidArgument where the folder holds what whence did not write.
void write_peft(const std::filesystem::path& directory, const PeftAdapter& adapter,
                std::map<std::string, std::string> metadata);

}  // namespace whence
