#include "whence/store/self_scores.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/error.h"
#include "whence/data/safetensors.h"
#include "whence/store/detail/run_key.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kSelf = "self", kIds = "example-ids";

bool is_self(const std::string& name) { return name == kSelf || name.starts_with("self."); }

}  // namespace

void write_self_scores(const fs::path& file, const std::vector<SelfScores>& stages, const std::string& run_key) {
  ParameterSet tensors;
  for (const auto& stage : stages) {
    tensors.add(stage.name, stage.scores.contiguous());
    tensors.add(std::string(kIds) + stage.name.substr(kSelf.size()), stage.example_ids.contiguous());
  }
  write_safetensors(file, tensors, {{detail::kRunKey, run_key}});
}

SelfResult read_self_scores(const fs::path& path) {
  const auto file = fs::is_directory(path) ? path / "scores.safetensors" : path;
  const auto tensors = read_safetensors(file);
  SelfResult out;
  for (const auto& name : tensors.names()) {
    if (!is_self(name)) {
      continue;
    }
    const auto ids = std::string(kIds) + name.substr(kSelf.size());
    const auto& scores = tensors.at(name);
    if (!tensors.contains(ids) || scores.dim() != 1 || !scores.is_floating_point() ||
        tensors.at(ids).sizes() != scores.sizes() || tensors.at(ids).scalar_type() != at::kLong) {
      throw DataError(fmt::format("{}: {} needs {} beside it, int64 and as long", file.string(), name, ids));
    }
    out.stages.push_back({name, scores, tensors.at(ids)});
  }
  if (out.stages.empty()) {
    throw DataError(fmt::format("{}: no scores of --self, expected a tensor \"self\"", file.string()));
  }
  return out;
}

}  // namespace whence
