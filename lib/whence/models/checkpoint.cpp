#include "whence/models/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/data/safetensors.h"
#include "whence/models/detail/hugging_face.h"
#include "whence/models/detail/model_folder.h"
#include "whence/models/language_model.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

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

std::vector<fs::path> checkpoint_files(const fs::path& checkpoint) {
  if (!fs::is_directory(checkpoint)) {
    return fs::exists(checkpoint) ? std::vector{checkpoint} : std::vector<fs::path>{};
  }
  auto out = detail::weight_files(checkpoint);
  if (const auto index = checkpoint / "model.safetensors.index.json";
      fs::exists(index) && !fs::exists(checkpoint / "model.safetensors")) {
    out.push_back(index);
  }
  return out;
}

bool is_whence_checkpoint(const fs::path& checkpoint) {
  if (fs::is_directory(checkpoint)) {
    return detail::is_by_whence(checkpoint);
  }
  return fs::exists(checkpoint) && read_safetensors_metadata(checkpoint).count("tuning") > 0;
}

NamedTensors read_checkpoint(const fs::path& checkpoint, const LanguageModel* model, const ParameterSet& expected,
                             const Renaming& rename, const std::string& where) {
  if (model != nullptr && fs::is_directory(checkpoint)) {
    return {model->read_directory(checkpoint, expected), {}};
  }
  auto found = read_safetensors(checkpoint);
  std::string note;
  if (!is_whence_checkpoint(checkpoint)) {
    auto named = with_expected_names(expected, found, rename, /*by_shape=*/model == nullptr, where);
    found = std::move(named.tensors);
    note = std::move(named.note);
  }
  return {fit_checkpoint(expected, found, where), std::move(note)};
}

}  // namespace whence
