#include "whence/stages/unfinished.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "whence/core/json.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/stages/detail/training_record.h"
#include "whence/stages/detail/unfinished.h"

namespace whence {
namespace fs = std::filesystem;

fs::path unfinished_path(const fs::path& checkpoint) {
  auto path = checkpoint.lexically_normal().string();
  while (path.ends_with('/')) {
    path.pop_back();
  }
  return path + ".unfinished";
}

namespace detail {
using nlohmann::json;

void write_unfinished(const fs::path& path, const TrainingState& state, const json& record) {
  ParameterSet tensors;
  const auto add = [&](const std::string& group, const TensorList& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      tensors.add(fmt::format("{}.{:06}", group, i), values[i].detach().cpu().contiguous());
    }
  };
  add("theta", state.theta);
  for (std::size_t i = 0; i < state.memory.size(); ++i) {
    add(fmt::format("memory.{:06}", i), state.memory[i]);
  }
  add("best", state.best);
  std::map<std::string, std::string> metadata{{"iteration", std::to_string(state.iteration)},
                                              {"time", fmt::format("{}", state.time)},
                                              {kTrainedFrom, json_text(record)}};
  if (!state.validation.empty()) {
    metadata[kValidation] = json_text(json{{kValidation, validation_json(state.validation)}});
  }
  write_sealed(path, tensors, std::move(metadata));
}

TrainingState read_unfinished(const fs::path& path, const json& record, const TensorList& like,
                              const std::string& parent, const std::string& anew) {
  const auto [tensors, metadata] = read_sealed(path);
  const auto held = metadata.find(kTrainedFrom);
  const auto changed = changed_records(held == metadata.end() ? json::object() : parse_record(held->second),
                                       parse_record(json_text(record)), parent);
  if (!changed.empty()) {
    throw InvalidArgument(
        fmt::format("{} holds training that began otherwise ({}); finish it as it began, or begin anew: {}",
                    path.string(), fmt::join(changed, "; "), anew));
  }
  const auto group = [&](const std::string& name) {
    TensorList out;
    const auto found = tensors.select(name + ".");
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto key = fmt::format("{}.{:06}", name, i);
      if (!found.contains(key)) {
        throw DataError(fmt::format("{}: {} is missing; begin anew: {}", path.string(), key, anew));
      }
      out.push_back(found.at(key).clone().to(like.front().options()));
    }
    return out;
  };
  TrainingState state;
  state.theta = group("theta");
  state.iteration = metadata_number<std::int64_t>(metadata, "iteration", path);
  state.time = metadata_number<double>(metadata, "time", path);
  state.best = group("best");
  if (const auto told = metadata.find(kValidation); told != metadata.end()) {
    const JsonView measured(parse_record(told->second), path.string() + ": metadata");
    state.validation = read_validation(measured[kValidation]);
  }
  const auto same_shape = [](const at::Tensor& a, const at::Tensor& b) { return a.sizes() == b.sizes(); };
  const auto fits = [&](const TensorList& x) {
    return std::equal(x.begin(), x.end(), like.begin(), like.end(), same_shape);
  };
  if (!fits(state.theta) || (state.validation.empty() ? !state.best.empty() : !fits(state.best))) {
    throw DataError(fmt::format("{}: its parameters are not those of the stage; begin anew: {}", path.string(), anew));
  }
  for (std::size_t i = 0;; ++i) {
    auto memory = group(fmt::format("memory.{:06}", i));
    if (memory.empty()) {
      break;
    }
    state.memory.push_back(std::move(memory));
  }
  return state;
}

}  // namespace detail
}  // namespace whence
