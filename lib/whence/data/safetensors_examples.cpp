#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/data/detail/channels.h"
#include "whence/data/detail/keys.h"
#include "whence/data/format.h"
#include "whence/data/safetensors.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct SafetensorsKeys {
  std::string file, targets = "targets";
  std::vector<std::string> arguments;
  detail::ChannelKeys channels;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, detail::kRequiredPath,
          "holds `inputs` [N, ...] and `targets`: integers [N] are classes, floating numbers [N] and [N, k] values; or "
          "of texts `tokens` [N, T], `lengths` [N] where padded, and `targets` or `predicted` [N, T] (-1: none)");
    field("arguments", self.arguments, detail::Takes{"a list of tensors", "inputs"},
          "of a model that takes several inputs: the tensors [N, ...] that are an example's, in its order; an exported "
          "model says so itself");
    field("targets", self.targets, detail::Takes{"a tensor's name, or none"},
          "the targets; none: the model makes its loss of its inputs, as one with loss = \"exported\" does");
    detail::ChannelKeys::fields(self.channels, field);
  }
};

at::Tensor named_tensor(const ParameterSet& tensors, std::string_view name, const fs::path& path) {
  if (!tensors.contains(name)) {
    throw DataError(
        fmt::format("{}: no tensor \"{}\", it holds: {}", path.string(), name, fmt::join(tensors.names(), ", ")));
  }
  return tensors.at(name);
}

/// Several inputs, laid end to end: [N, entries of all]. `shapes` is told of each.
at::Tensor read_arguments(const ParameterSet& tensors, const std::vector<std::string>& names, const fs::path& path,
                          std::vector<InputShape>& shapes) {
  std::vector<at::Tensor> parts;
  for (const auto& name : names) {
    const auto part = named_tensor(tensors, name, path);
    if (part.dim() < 1 || (!parts.empty() && part.size(0) != parts.front().size(0))) {
      throw DataError(fmt::format("{}: {} [{}], expected [N, ...] with the N of {}", path.string(), name,
                                  fmt::join(part.sizes(), ", "), names.front()));
    }
    constexpr std::int64_t kExact = 1 << 24;  // whole numbers that float32 holds
    if (!part.is_floating_point() && part.numel() > 0 && part.to(at::kLong).abs().max().item<std::int64_t>() > kExact) {
      throw DataError(fmt::format("{}: {} holds whole numbers beyond {}", path.string(), name, kExact));
    }
    shapes.push_back({name, part.sizes().slice(1).vec()});
    parts.push_back(part.dim() == 1 ? part.unsqueeze(1) : part.flatten(1));
  }
  auto type = parts.front().scalar_type();
  for (const auto& part : parts) {
    type = at::promote_types(type, part.scalar_type());
  }
  for (auto& part : parts) {
    part = part.to(type);
  }
  return at::cat(parts, 1);
}

/// Padded tokens [N, T] end to end.
TokenSequences read_tokens(const ParameterSet& tensors, const fs::path& path) {
  const auto padded = tensors.at("tokens");
  if (padded.dim() != 2 || padded.is_floating_point() || padded.numel() == 0) {
    throw DataError(fmt::format("{}: tokens [{}] of {}, expected integers [N, T]", path.string(),
                                fmt::join(padded.sizes(), ", "), c10::toString(padded.scalar_type())));
  }
  const auto count = padded.size(0), width = padded.size(1);
  TokenSequences out;
  out.lengths = tensors.contains("lengths") ? tensors.at("lengths").to(at::kLong) : at::full({count}, width, at::kLong);
  if (out.lengths.sizes() != at::IntArrayRef{count} || out.lengths.min().item<std::int64_t>() < 1 ||
      out.lengths.max().item<std::int64_t>() > width) {
    throw DataError(fmt::format("{}: lengths, expected [{}] from 1 to {}", path.string(), count, width));
  }
  const auto real = at::arange(width, at::kLong).lt(out.lengths.unsqueeze(1));
  const auto flat = [&](const at::Tensor& x, const char* name) {
    if (x.sizes() != padded.sizes()) {
      throw DataError(fmt::format("{}: {} [{}], expected [{}] as tokens", path.string(), name,
                                  fmt::join(x.sizes(), ", "), fmt::join(padded.sizes(), ", ")));
    }
    return x.masked_select(real);
  };
  out.tokens = flat(padded, "tokens").to(at::kInt);
  out.begins = out.lengths.cumsum(0) - out.lengths;
  if (tensors.contains("types")) {
    out.types = flat(tensors.at("types"), "types").to(at::kByte);
  }
  if (tensors.contains("predicted")) {
    out.targets = flat(tensors.at("predicted"), "predicted").to(at::kInt).clamp_min(-1);
  }
  return out;
}

class SafetensorsFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<SafetensorsKeys>(); }
  bool may_hold_tokens() const override { return true; }

  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind) const override {
    const auto keys = detail::read_keys<SafetensorsKeys>(table, "safetensors");
    const auto path = folder / keys.file;
    const auto tensors = read_safetensors(path);
    SourceExamples source;
    source.files = {path};
    source.inputs_from = source.targets_from = path.string();
    if (tensors.contains("tokens")) {
      source.tokens = read_tokens(tensors, path);
    } else if (!keys.arguments.empty()) {
      source.inputs = read_arguments(tensors, keys.arguments, path, source.arguments);
    } else {
      source.inputs = named_tensor(tensors, "inputs", path);
    }
    if (source.tokens.tokens.defined() && !tensors.contains(keys.targets)) {
      return source;
    }
    if (keys.targets == "none") {
      source.values = at::zeros({source.inputs.size(0), 0}, at::kFloat);
      return source;
    }
    const auto targets = named_tensor(tensors, keys.targets, path);
    const bool values = targets.is_floating_point() || targets.dim() == 2;
    if ((source.inputs.defined() && source.inputs.dim() < 1) || targets.dim() < 1 || targets.dim() > 2) {
      throw DataError(
          fmt::format("{}: inputs [{}] and targets [{}], expected [N, ...] and [N] or [N, k]", path.string(),
                      fmt::join((source.inputs.defined() ? source.inputs : source.tokens.lengths).sizes(), ", "),
                      fmt::join(targets.sizes(), ", ")));
    }
    if (values) {
      const auto numbers = targets.is_floating_point() ? targets : targets.to(at::kDouble);
      source.values = numbers.dim() == 1 ? numbers.unsqueeze(1) : numbers;
    } else {
      source.labels = targets.to(at::kLong);
    }
    return source;
  }
};

}  // namespace

WHENCE_FORMAT(safetensors, SafetensorsFormat)

}  // namespace whence
