// Tensors of PEFT's folders under the names that they have here.
#include "whence/tuning/peft.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/data/safetensors.h"
#include "whence/models/checkpoint.h"
#include "whence/models/language_model.h"
#include "whence/tuning/detail/peft_folder.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

using detail::PeftFolder;

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
  constexpr std::string_view kTuning = "tuning.";
  std::vector<std::string> out;
  for (const auto& name : trained.names()) {
    for (const auto& part : folder.parts) {
      const auto end = "." + part.module + ".";
      const auto at = ("." + name).find(end);
      if (name.starts_with(kTuning) && at != name.npos) {
        out.push_back(name.substr(kTuning.size(), at + end.size() - 2 - kTuning.size()));
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
void add_own_head(const Model& model, const ParameterSet& expected, ParameterSet& found) {
  const auto missing = model.head().of(expected).without(found);
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
      for (std::size_t k = 0; k < stored.size() && !found.contains(name); ++k) {
        if (name.ends_with("." + stored.names()[k]) && stored.values()[k].sizes() == missing.values()[i].sizes()) {
          found.add(name, stored.values()[k]);
        }
      }
    }
  }
}

}  // namespace

ParameterSet read_peft(const fs::path& directory, const Model& model, const ParameterSet& expected,
                       const ParameterSet& parent, const std::string& where) {
  const PeftFolder folder(directory);
  const auto modules = modules_of(expected, folder);
  ParameterSet found;
  for (const auto& part : folder.parts) {
    found.add(fmt::format("tuning.{}.{}", name_here(modules, part.module), part.name), part.value);
  }
  for (std::size_t i = 0; i < folder.whole.size(); ++i) {
    const auto& name = folder.whole.names()[i];
    const auto& value = folder.whole.values()[i];
    if (const auto head = name_here(model.head().of(expected).names(), name); expected.contains(head)) {
      found.add(head, value);
      continue;
    }
    const auto base = name_here(parent.names(), name);
    if (!parent.contains(base)) {
      throw DataError(fmt::format("{}: tensor \"{}\" is of no layer of the model or of the stage's head", where, name));
    }
    if (!is_same(value, parent.at(base))) {
      throw DataError(fmt::format(
          "{}: tensor \"{}\" takes the place of the base's, which no tuning here trains beside its own: merge the "
          "adapter with peft, and name the merged model as the stage's checkpoint",
          where, name));
    }
  }
  add_own_head(model, expected, found);
  return fit_checkpoint(expected, found, where);
}

}  // namespace whence
