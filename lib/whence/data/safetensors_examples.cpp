#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/data/detail/keys.h"
#include "whence/data/format.h"
#include "whence/data/safetensors.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct SafetensorsKeys {
  std::string file;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, detail::kRequiredPath,
          "holds `inputs` [N, ...] and `targets`: integers [N] are classes, floating numbers [N] or [N, k] values");
  }
};

at::Tensor named_tensor(const ParameterSet& tensors, std::string_view name, const fs::path& path) {
  if (!tensors.contains(name)) {
    throw DataError(
        fmt::format("{}: no tensor \"{}\", it holds: {}", path.string(), name, fmt::join(tensors.names(), ", ")));
  }
  return tensors.at(name);
}

class SafetensorsFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<SafetensorsKeys>(); }

  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind) const override {
    const auto path = folder / detail::read_keys<SafetensorsKeys>(table, "safetensors").file;
    const auto tensors = read_safetensors(path);
    SourceExamples source;
    source.files = {path};
    source.inputs_from = source.targets_from = path.string();
    source.inputs = named_tensor(tensors, "inputs", path);
    const auto targets = named_tensor(tensors, "targets", path);
    const bool values = targets.is_floating_point();
    if (source.inputs.dim() < 1 || targets.dim() < 1 || targets.dim() > (values ? 2 : 1)) {
      throw DataError(fmt::format("{}: inputs [{}] and {} targets [{}], expected [N, ...] and [N]{}", path.string(),
                                  fmt::join(source.inputs.sizes(), ", "), values ? "floating" : "integer",
                                  fmt::join(targets.sizes(), ", "), values ? " or [N, k]" : ""));
    }
    if (values) {
      source.values = targets.dim() == 1 ? targets.unsqueeze(1) : targets;
    } else {
      source.labels = targets.to(at::kLong);
    }
    return source;
  }
};

}  // namespace

std::unique_ptr<DataFormat> make_safetensors(std::string_view options) {
  parse<NoOptions>(options, "safetensors");
  return std::make_unique<SafetensorsFormat>();
}

}  // namespace whence
