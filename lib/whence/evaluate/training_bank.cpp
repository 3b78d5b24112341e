#include "whence/evaluate/training_bank.h"

#include <ATen/ATen.h>

#include "whence/core/digest.h"
#include "whence/core/output.h"
#include "whence/data/sealed_safetensors.h"

namespace whence {
namespace fs = std::filesystem;

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
    const auto path = place(weights);
    make_folder(path.parent_path());
    ParameterSet held;
    held.add("measurements", outcome.measurements.to(at::kDouble).cpu());
    held.add("gradient-norm", at::tensor({outcome.gradient_norm}, at::kDouble));
    held.add("unconverged", at::tensor({outcome.unconverged}, at::kLong));
    write_sealed(path, held, {});
  };
  return {load, save};
}

}  // namespace whence
