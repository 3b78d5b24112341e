#include "whence/models/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/data/safetensors.h"
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
  std::vector<fs::path> out;
  if (fs::is_directory(checkpoint)) {
    for (const auto& entry : fs::directory_iterator(checkpoint)) {
      const auto name = entry.path().filename().string();
      if (name.starts_with("model") && name.find(".safetensors") != name.npos && !name.ends_with(".part")) {
        out.push_back(entry.path());
      }
    }
    std::sort(out.begin(), out.end());
  } else if (fs::exists(checkpoint)) {
    out.push_back(checkpoint);
  }
  return out;
}

ParameterSet read_checkpoint(const fs::path& checkpoint, const LanguageModel* model, const ParameterSet& expected,
                             const std::string& where) {
  if (model != nullptr && fs::is_directory(checkpoint)) {
    return model->read_directory(checkpoint, expected);
  }
  return fit_checkpoint(expected, read_safetensors(checkpoint), where);
}

}  // namespace whence
