#include "whence/models/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/data/safetensors.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/detail/hugging_face.h"
#include "whence/models/detail/model_folder.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/language_model.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

constexpr const char* kAdapterWeights = "adapter_model.safetensors";

/// The one file that training wrote a checkpoint's tensors into.
fs::path file_of(const fs::path& checkpoint) {
  return is_adapter(checkpoint) ? checkpoint / kAdapterWeights : checkpoint;
}

at::Tensor fit(const at::Tensor& expected, const at::Tensor& found, const std::string& what) {
  if (found.sizes() != expected.sizes()) {
    throw DataError(fmt::format("{} has shape [{}], expected [{}]", what, fmt::join(found.sizes(), ", "),
                                fmt::join(expected.sizes(), ", ")));
  }
  if (!found.is_floating_point()) {
    throw DataError(fmt::format("{} has dtype {}, expected a floating one", what, c10::toString(found.scalar_type())));
  }
  const auto value = found.detach().to(expected.options(), /*non_blocking=*/false, /*copy=*/true);
  const auto bad = at::isfinite(value).logical_not().sum().item<std::int64_t>();
  if (bad > 0) {
    throw DataError(fmt::format("{} is not finite: {} of {} entries are NaN or infinite as {}", what, bad,
                                value.numel(), c10::toString(value.scalar_type())));
  }
  return value;
}

}  // namespace

ParameterSet fit_checkpoint(const ParameterSet& expected, const ParameterSet& found, const std::string& where) {
  for (const auto& name : found.names()) {
    if (!expected.contains(name)) {
      throw DataError(fmt::format("{}: {}", where, unknown_name("tensor", name, expected.names())));
    }
  }
  TensorList values;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& name = expected.names()[i];
    if (!found.contains(name)) {
      throw DataError(fmt::format("{}: tensor \"{}\" is missing; {} of {} expected tensors are there", where, name,
                                  found.size(), expected.size()));
    }
    values.push_back(fit(expected.values()[i], found.at(name), fmt::format("{}: tensor \"{}\"", where, name)));
  }
  return expected.with(std::move(values));
}

bool is_adapter(const fs::path& checkpoint) { return fs::is_directory(checkpoint) && detail::is_adapter(checkpoint); }

bool is_exported(const fs::path& checkpoint) { return checkpoint.extension() == ".pt2"; }

std::vector<fs::path> checkpoint_files(const fs::path& checkpoint) {
  if (!fs::is_directory(checkpoint)) {
    return fs::exists(checkpoint) ? std::vector{checkpoint} : std::vector<fs::path>{};
  }
  if (is_adapter(checkpoint)) {
    std::vector<fs::path> there;
    for (const char* name : {kAdapterWeights, "adapter_model.bin", "adapter_config.json"}) {
      if (fs::exists(checkpoint / name)) {
        there.push_back(checkpoint / name);
      }
    }
    return there;
  }
  auto out = detail::weight_files(checkpoint);
  if (const auto index = checkpoint / "model.safetensors.index.json";
      fs::exists(index) && !fs::exists(checkpoint / "model.safetensors")) {
    out.push_back(index);
  }
  return out;
}

bool is_whence_checkpoint(const fs::path& checkpoint) {
  if (fs::is_directory(checkpoint) && !is_adapter(checkpoint)) {
    return detail::is_by_whence(checkpoint);
  }
  if (is_exported(checkpoint)) {
    return false;
  }
  const auto file = file_of(checkpoint);
  return fs::exists(file) && read_safetensors_metadata(file).count("tuning") > 0;
}

std::map<std::string, std::string> checkpoint_metadata(const fs::path& checkpoint) {
  for (const auto& file : checkpoint_files(checkpoint)) {
    if (file.extension() == ".safetensors" || (file == checkpoint && !is_exported(file))) {
      return read_safetensors_metadata(file);
    }
  }
  return {};
}

std::string checkpoint_metadata(const fs::path& checkpoint, const std::string& key) {
  const auto metadata = checkpoint_metadata(checkpoint);
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : found->second;
}

namespace {

/// Outputs of the head; where no tensor has its name, of the one linear layer whose outputs no other takes. A
/// classifier may stand on a layer of its own, which has dense in its name. 0 where that does not tell.
std::int64_t head_outputs(const Head& head, const ParameterSet& tensors) {
  std::vector<std::int64_t> heads, ends;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& name = tensors.names()[i];
    const auto& value = tensors.values()[i];
    if (value.dim() != 2) {
      continue;
    }
    if (head.holds(name) && name.ends_with("weight") && name.find("dense") == name.npos) {
      heads.push_back(value.size(0));
    }
    bool taken = false;
    for (std::size_t j = 0; j < tensors.size(); ++j) {
      const auto& other = tensors.values()[j];
      taken = taken || (i != j && other.dim() == 2 && other.size(1) == value.size(0));
    }
    if (!taken) {
      ends.push_back(value.size(0));
    }
  }
  const auto& found = heads.empty() ? ends : heads;
  return found.size() == 1 ? found.front() : 0;
}

/// Outputs of the classifier that an adapter was trained with; 0 without one.
std::int64_t adapter_outputs(const ParameterSet& tensors) {
  for (const char* name : {".classifier.weight", ".classifier.out_proj.weight", ".score.weight"}) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors.names()[i].ends_with(name) && tensors.values()[i].dim() == 2) {
        return tensors.values()[i].size(0);
      }
    }
  }
  return 0;
}

}  // namespace

std::map<std::string, std::string> data_metadata(const Dataset& data) {
  std::map<std::string, std::string> out;
  if (!data.classes().empty()) {
    out["classes"] = json_text(nlohmann::json(data.classes()));
  }
  if (data.table()) {
    out["standardize"] = data.table()->standardize ? "true" : "false";
  }
  return out;
}

HeadClasses checkpoint_classes(const fs::path& checkpoint, const Model& model) {
  const auto* language = dynamic_cast<const LanguageModel*>(&model);
  const bool adapter = is_adapter(checkpoint);
  HeadClasses out;
  out.from = checkpoint.string();
  out.sorted = is_whence_checkpoint(checkpoint);
  if (is_exported(checkpoint)) {
    if (const auto* exported = dynamic_cast<const ExportedModel*>(&model)) {
      out.names = exported->class_names();
      const auto facts = exported->facts();
      const bool of_examples = facts.dimensions == 2 && facts.width > 1;  // rather than of tokens, or of one event
      out.outputs = !out.names.empty() ? static_cast<std::int64_t>(out.names.size()) : of_examples ? facts.width : 0;
    }
    return out;
  }
  if (fs::is_directory(checkpoint) && !adapter) {
    if (language != nullptr) {
      out.names = language->class_names(checkpoint);
    }
    out.outputs = static_cast<std::int64_t>(out.names.size());
    for (std::size_t k = 0; k < out.names.size(); ++k) {
      if (out.names[k] == fmt::format("LABEL_{}", k)) {  // a name that nobody gave
        out.names.clear();
      }
    }
    return out;
  }
  if (const auto names = checkpoint_metadata(checkpoint, "classes"); !names.empty()) {
    const auto list = parse_json(names, checkpoint.string() + ": classes");
    for (const auto& name : list) {
      out.names.push_back(name.is_string() ? name.get<std::string>() : name.dump());
    }
    out.outputs = static_cast<std::int64_t>(out.names.size());
    return out;
  }
  if (adapter) {
    out.outputs = fs::exists(file_of(checkpoint)) ? adapter_outputs(read_safetensors(file_of(checkpoint))) : 0;
  } else if (language == nullptr || out.sorted) {
    out.outputs = head_outputs(model.head(), read_safetensors(checkpoint));
  }
  return out;
}

NamedTensors read_checkpoint(const fs::path& checkpoint, const Model& model, const ParameterSet& expected,
                             const Renaming& rename, const std::string& where) {
  const auto* language = dynamic_cast<const LanguageModel*>(&model);
  if (language != nullptr && fs::is_directory(checkpoint)) {
    return {language->read_directory(checkpoint, expected), {}};
  }
  if (const auto* exported = dynamic_cast<const ExportedModel*>(&model);
      exported != nullptr && is_exported(checkpoint)) {
    return {fit_checkpoint(expected, exported->read_parameters(checkpoint), where), {}};
  }
  auto found = read_intact_weights(checkpoint);
  std::string note;
  if (!is_whence_checkpoint(checkpoint)) {
    auto named = with_expected_names(expected, found, rename, /*by_shape=*/language == nullptr, where);
    found = std::move(named.tensors);
    note = std::move(named.note);
  }
  return {fit_checkpoint(expected, found, where), std::move(note)};
}

}  // namespace whence
