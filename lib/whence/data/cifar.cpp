#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "whence/core/files.h"
#include "whence/data/detail/bytes.h"
#include "whence/data/detail/channels.h"
#include "whence/data/detail/keys.h"
#include "whence/data/format.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kImageBytes = 3 * 32 * 32;

struct CifarKeys {
  std::string file;
  std::vector<std::string> files;
  std::int64_t label_bytes = 1;
  detail::ChannelKeys channels;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, detail::Takes{"a path", "required, or files"},
          "records of label bytes and 3 x 32 x 32 bytes, which are divided by 255");
    field("files", self.files, detail::Takes{"a list of paths", "required, or file"},
          "several such, read in this order");
    field("label-bytes", self.label_bytes, detail::Takes{"1 or 2", "", false, 1, 2},
          "label bytes of a record, of which the last is used: 2 for the fine labels of CIFAR-100");
    detail::ChannelKeys::fields(self.channels, field);
  }
};

/// [N, label_bytes + 3072] bytes, mapped.
at::Tensor read_records(const fs::path& path, std::int64_t label_bytes) {
  const auto file = open_bytes(path);
  const auto held = static_cast<std::int64_t>(file->bytes().size());
  const auto record = label_bytes + kImageBytes;
  if (held % record != 0) {
    throw DataError(fmt::format("{}: {} bytes, expected a multiple of {}: the last record begins at byte {}",
                                path.string(), held, record, held - held % record));
  }
  return detail::mapped_tensor(file, 0, {held / record, record}, at::kByte);
}

class CifarFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<CifarKeys>(); }

  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind) const override {
    auto keys = detail::read_keys<CifarKeys>(table, "cifar");
    if (keys.file.empty() == keys.files.empty()) {
      throw InvalidArgument(keys.file.empty()
                                ? "cifar: key file is missing, expected a path (or files, a list of paths)"
                                : "cifar: keys file and files are both given, expected one of them");
    }
    if (keys.files.empty()) {
      keys.files.push_back(keys.file);
    }
    SourceExamples source;
    std::vector<at::Tensor> parts;
    std::int64_t rows = 0;
    for (const auto& name : keys.files) {
      source.files.push_back(folder / name);
      source.inputs_from += (parts.empty() ? "" : ", ") + source.files.back().string();
      source.origins.push_back({rows, source.files.back()});
      parts.push_back(read_records(source.files.back(), keys.label_bytes));
      rows += parts.back().size(0);
    }
    source.targets_from = source.inputs_from;
    const auto records = parts.size() == 1 ? parts[0] : at::cat(parts);
    source.inputs = records.narrow(1, keys.label_bytes, kImageBytes).view({records.size(0), 3, 32, 32});
    source.scale = 1.0 / 255;
    source.labels_are_names = true;
    source.labels = records.select(1, keys.label_bytes - 1).to(at::kLong);
    return source;
  }
};

}  // namespace

WHENCE_FORMAT(cifar, CifarFormat)

}  // namespace whence
