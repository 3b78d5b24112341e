#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "whence/core/files.h"
#include "whence/data/detail/bytes.h"
#include "whence/data/detail/channels.h"
#include "whence/data/detail/keys.h"
#include "whence/data/format.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct IdxKeys {
  std::string images, labels;
  detail::ChannelKeys channels;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("images", self.images, detail::kRequiredPath, "inputs [N, ...]; unsigned bytes are divided by 255");
    field("labels", self.labels, detail::kRequiredPath, "labels [N], or values [N] where they are floating");
    detail::ChannelKeys::fields(self.channels, field);
  }
};

struct IdxType {
  int code;
  at::ScalarType dtype;
};
constexpr IdxType kTypes[] = {{0x08, at::kByte}, {0x09, at::kChar},  {0x0B, at::kShort},
                              {0x0C, at::kInt},  {0x0D, at::kFloat}, {0x0E, at::kDouble}};

/// The big-endian entries that start at byte `offset`, in this machine's order.
at::Tensor swapped_tensor(const FileBytes& file, std::size_t offset, at::IntArrayRef shape, at::ScalarType dtype) {
  auto out = at::empty(shape, dtype);
  const auto width = static_cast<std::size_t>(out.element_size());
  const auto* from = file.bytes().data() + offset;
  auto* to = static_cast<std::byte*>(out.data_ptr());
  for (std::int64_t i = 0; i < out.numel(); ++i, from += width, to += width) {
    std::reverse_copy(from, from + width, to);
  }
  return out;
}

/// The array of an IDX file: two zero bytes, a type, the number of dimensions, their sizes (big-endian, 4 bytes each),
/// the entries. Unsigned bytes are mapped, others copied.
at::Tensor read_idx(const fs::path& path) {
  const auto file = open_bytes(path);
  const auto bytes = file->bytes();
  const auto byte = [&](std::size_t i) { return std::to_integer<int>(bytes[i]); };
  const auto fail = [&](const std::string& what) { throw DataError(fmt::format("{}: {}", path.string(), what)); };
  if (bytes.size() < 4) {
    fail(fmt::format("{} bytes, expected at least the 4 of an IDX magic number", bytes.size()));
  }
  const auto* const type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](IdxType t) { return t.code == byte(2); });
  if (byte(0) != 0 || byte(1) != 0 || type == std::end(kTypes) || byte(3) == 0) {
    fail(fmt::format(
        "magic number {:02x}{:02x}{:02x}{:02x}, expected 0000, a type in 08 09 0b 0c 0d 0e and at least one "
        "dimension",
        byte(0), byte(1), byte(2), byte(3)));
  }
  const std::size_t data_begin = 4 + 4 * static_cast<std::size_t>(byte(3));
  if (bytes.size() < data_begin) {
    fail(fmt::format("{} bytes, expected {} for the sizes of {} dimensions", bytes.size(), data_begin, byte(3)));
  }
  std::vector<std::int64_t> shape;
  for (std::size_t at = 4; at < data_begin; at += 4) {
    shape.push_back((std::int64_t{byte(at)} << 24) | (byte(at + 1) << 16) | (byte(at + 2) << 8) | byte(at + 3));
  }
  const auto expected = detail::checked_bytes(shape, static_cast<std::int64_t>(c10::elementSize(type->dtype)));
  const auto held = static_cast<std::int64_t>(bytes.size() - data_begin);
  if (expected != held) {
    fail(fmt::format("{} bytes from byte {} on, expected {} for the sizes [{}] in its header", held, data_begin,
                     expected ? std::to_string(*expected) : "more than 2^63", fmt::join(shape, ", ")));
  }
  return c10::elementSize(type->dtype) == 1 ? detail::mapped_tensor(file, data_begin, shape, type->dtype)
                                            : swapped_tensor(*file, data_begin, shape, type->dtype);
}

class IdxFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<IdxKeys>(); }

  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind) const override {
    const auto keys = detail::read_keys<IdxKeys>(table, "idx");
    const auto images = folder / keys.images, labels = folder / keys.labels;
    SourceExamples source;
    source.files = {images, labels};
    source.inputs_from = images.string();
    source.targets_from = labels.string();
    source.inputs = read_idx(images);
    if (source.inputs.dim() < 2) {
      throw DataError(fmt::format("{}: 1 dimension, expected images with at least 2", images.string()));
    }
    source.scale = source.inputs.scalar_type() == at::kByte ? 1.0 / 255 : 1;
    const auto targets = read_idx(labels);
    if (targets.dim() != 1) {
      throw DataError(fmt::format("{}: {} dimensions, expected labels with 1", labels.string(), targets.dim()));
    }
    (targets.is_floating_point() ? source.values : source.labels) =
        targets.is_floating_point() ? targets.unsqueeze(1) : targets.to(at::kLong);
    return source;
  }
};

}  // namespace

WHENCE_FORMAT(idx, IdxFormat)

}  // namespace whence
