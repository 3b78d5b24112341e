#include "whence/evaluate/training_bank.h"

#include <ATen/ATen.h>

#include "whence/core/digest.h"
#include "whence/core/output.h"
#include "whence/data/sealed_safetensors.h"

namespace whence {
namespace fs = std::filesystem;

void keep_in_bank(const fs::path& file, const ParameterSet& tensors,
                  const std::map<std::string, std::string>& metadata) {
  make_folder(file.parent_path());
  try {
    write_sealed(file, tensors, metadata);
  } catch (...) {
    std::error_code no_matter;
    fs::remove(file.parent_path(), no_matter);  // where it is empty
    throw;
  }
}

RetrainingCache training_bank(const fs::path& folder, const std::string& key) {
  const auto place = [folder, key](const at::Tensor& weights) {
    return folder / (Digest().add(key).add(weights).text() + ".safetensors");
  };
  const auto load = [place](const at::Tensor& weights) -> std::optional<RetrainingOutcome> {
    const auto path = place(weights);
    if (!fs::exists(path)) {
      return std::nullopt;
    }
    const auto held = read_sealed(path).tensors;
    return RetrainingOutcome{held.at("measurements"), held.at("gradient-norm").item<double>(),
                             held.at("unconverged").item<std::int64_t>()};
  };
  const auto save = [place](const at::Tensor& weights, const RetrainingOutcome& outcome) {
    ParameterSet held;
    held.add("measurements", outcome.measurements.to(at::kDouble).cpu());
    held.add("gradient-norm", at::tensor({outcome.gradient_norm}, at::kDouble));
    held.add("unconverged", at::tensor({outcome.unconverged}, at::kLong));
    keep_in_bank(place(weights), held, {});
  };
  return {load, save, [place](const at::Tensor& weights) { return fs::exists(place(weights)); }};
}

}  // namespace whence
