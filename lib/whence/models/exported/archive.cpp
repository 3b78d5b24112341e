#include "whence/models/exported/detail/archive.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "whence/core/error.h"
#include "whence/core/printable.h"
#include "whence/models/exported/detail/zip.h"

namespace whence::detail {
namespace {

constexpr std::int64_t kMajor = 8;

/// What a zip file that is no .pt2 seems to be, and what to do about it.
void check_kind(const Zip& zip) {
  const auto names = zip.names();
  const auto any = [&](auto&& is) { return std::any_of(names.begin(), names.end(), is); };
  if (zip.contains("serialized_exported_program.json")) {
    throw DataError(
        fmt::format("{}: saved by a torch before 2.8, with pickled weights: torch.export.save(torch.export.load(file), "
                    "\"new.pt2\") "
                    "in a newer one",
                    zip.where()));
  }
  if (!zip.contains("archive_format")) {
    throw DataError(fmt::format("{}: {}, expected what torch.export.save writes", zip.where(),
                                zip.contains("constants.pkl") ? "TorchScript"
                                : zip.contains("data.pkl")    ? "a pickle, which torch.save writes and may run anything"
                                                              : "a zip file of something else"));
  }
  if (zip.text("archive_format") != "pt2" || (zip.contains("archive_version") && zip.text("archive_version") != "0") ||
      (zip.contains("byteorder") && zip.text("byteorder") != "little")) {
    throw DataError(fmt::format("{}: archive_format {}, version {}, byte order {}, expected pt2, 0, little",
                                zip.where(), printable(zip.text("archive_format")),
                                zip.contains("archive_version") ? printable(zip.text("archive_version")) : "0",
                                zip.contains("byteorder") ? printable(zip.text("byteorder")) : "little"));
  }
  if (any([](const std::string& name) { return name.starts_with("data/weights/") && name.ends_with(".pt"); })) {
    throw DataError(
        fmt::format("{}: weights as a pickle, which may run anything: torch.export.save of torch 2.8 or "
                    "later stores them raw",
                    zip.where()));
  }
}

/// The one program's name.
std::string program_name(const Zip& zip) {
  std::vector<std::string> found;
  for (const auto& name : zip.names()) {
    if (name.starts_with("models/") && name.ends_with(".json")) {
      found.push_back(name.substr(7, name.size() - 12));
    }
  }
  if (found.size() != 1) {
    throw DataError(fmt::format("{}: {}, expected one", zip.where(),
                                found.empty() ? "no program (models/*.json), perhaps one compiled by AOTInductor"
                                              : fmt::format("{} programs", found.size())));
  }
  return found.front();
}

/// The sizes, strides or offset of a stored tensor, which have no symbols.
std::int64_t fixed_size(const JsonView& size) {
  const auto out = size["as_int"].get<std::int64_t>();
  if (out < 0) {
    size.refuse("a number >= 0");
  }
  return out;
}

/// a * b + c, and anything too large the largest number.
std::uint64_t multiply_add(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  std::uint64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) || __builtin_add_overflow(out, c, &out) ? ~std::uint64_t{0} : out;
}

/// What was read of the file already: many names may be of one member, and cost no more than one then.
struct ReadSoFar {
  std::map<std::pair<std::string, at::ScalarType>, at::Tensor> storages;  // of members
  std::map<std::string, at::Tensor> values;                               // by StoredTensor::place
  std::uint64_t bytes = 0;                                                // of the values
};

/// The member's bytes as numbers, whatever is behind the last whole one left out.
at::Tensor storage_of(const Zip& zip, const std::string& member, at::ScalarType dtype, ReadSoFar& read) {
  auto& out = read.storages[{member, dtype}];
  if (!out.defined()) {
    const auto bytes = zip.bytes(member);
    const auto count = bytes.size() / c10::elementSize(dtype);
    out = at::empty({static_cast<std::int64_t>(count)}, dtype);
    if (count > 0) {
      std::memcpy(out.data_ptr(), bytes.data(), count * c10::elementSize(dtype));
    }
  }
  return out;
}

StoredTensor read_tensor(const Zip& zip, const std::string& folder, const std::string& name, const JsonView& entry,
                         ReadSoFar& read) {
  const auto what = fmt::format("{}: tensor {}", zip.where(), printable(name));
  const auto member = folder + entry["path_name"].get<std::string>();
  if (entry.value("use_pickle", false) || !entry.contains("tensor_meta") || entry["tensor_meta"].is_null()) {
    throw DataError(
        fmt::format("{} is a pickle (a quantized tensor or an object), which may run anything: export the "
                    "model before it is made one",
                    what));
  }
  const auto meta = entry["tensor_meta"];
  const auto dtype = dtype_of_export(meta["dtype"].get<std::int64_t>(), what);
  constexpr std::int64_t kStrided = 7;
  if (meta["layout"].get<std::int64_t>() != kStrided) {
    throw DataError(fmt::format("{} is sparse, expected a dense one", what));
  }
  std::vector<std::int64_t> sizes, strides;
  for (const auto& size : meta["sizes"].list()) {
    sizes.push_back(fixed_size(size));
  }
  for (const auto& stride : meta["strides"].list()) {
    strides.push_back(fixed_size(stride));
  }
  constexpr std::size_t kMostDimensions = 64;
  if (sizes.size() != strides.size() || sizes.size() > kMostDimensions) {
    throw DataError(fmt::format("{} has {} sizes and {} strides", what, sizes.size(), strides.size()));
  }
  const auto offset = fixed_size(meta["storage_offset"]);
  const auto storage = storage_of(zip, member, dtype, read);
  const auto held = static_cast<std::uint64_t>(storage.numel()), element = c10::elementSize(dtype);
  std::uint64_t entries = 1, reach = static_cast<std::uint64_t>(offset) + 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    entries = multiply_add(entries, static_cast<std::uint64_t>(sizes[i]), 0);
    reach = sizes[i] == 0
                ? reach
                : multiply_add(static_cast<std::uint64_t>(sizes[i] - 1), static_cast<std::uint64_t>(strides[i]), reach);
  }
  constexpr std::uint64_t kRepeated = 1 << 24;  // bytes that a small storage may be seen as
  if (entries > 0 && (reach > held || entries > std::max(zip.size(), kRepeated) / element)) {
    throw DataError(fmt::format("{}: [{}] of {} from {}, which does not fit its {} bytes", what, fmt::join(sizes, ", "),
                                c10::toString(dtype), offset, held * element));
  }
  StoredTensor out;
  out.place = fmt::format("{} {} [{}] [{}] {}", member, offset, fmt::join(sizes, ","), fmt::join(strides, ","),
                          c10::toString(dtype));
  auto& value = read.values[out.place];
  if (!value.defined()) {
    constexpr std::uint64_t kMostTimes = 2;  // views of one storage may overlap
    read.bytes += entries * element;
    if (read.bytes > kMostTimes * std::max(zip.size(), kRepeated)) {
      throw DataError(fmt::format("{}: tensors of more than {} times its {} bytes in all, {} among them", zip.where(),
                                  kMostTimes, zip.size(), printable(name)));
    }
    value = entries == 0 ? at::empty(sizes, dtype) : storage.as_strided(sizes, strides, offset).contiguous();
  }
  out.value = value;
  out.is_parameter = entry.value("is_param", false);
  out.trained = out.is_parameter && meta.value("requires_grad", false);
  return out;
}

JsonView json_member(const Zip& zip, const std::string& member) {
  const auto where = fmt::format("{}: {}", zip.where(), member);
  const auto bytes = zip.bytes(member);
  return {parse_bounded<JsonView::Value>({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, where), where};
}

/// Values of all kinds in a text that may be JSON, and one for each empty list or object.
std::int64_t count_values(std::string_view text) {
  std::int64_t out = 1;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = text[i];
    if (quoted && c == '\\') {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == ',' || c == '[' || c == '{')) {
      ++out;
    }
  }
  return out;
}

std::map<std::string, StoredTensor> read_tensors(const Zip& zip, const std::string& folder, const std::string& config) {
  std::map<std::string, StoredTensor> out;
  if (!zip.contains(config)) {
    return out;
  }
  ReadSoFar read;
  const auto view = json_member(zip, config);
  for (const auto& [name, entry] : view["config"].items()) {
    out.emplace(name, read_tensor(zip, folder, name, entry, read));
  }
  return out;
}

}  // namespace

template <class Json>
Json parse_bounded(std::string_view text, const std::string& where) {
  constexpr std::int64_t kMost = 1000000;  // those of 15,000 nodes; GPT-2 has 500
  if (const auto count = count_values(text); count > kMost) {
    throw DataError(fmt::format("{}: {} values, expected at most {}", where, count, kMost));
  }
  return parse_json<Json>(text, where);
}
template nlohmann::json parse_bounded(std::string_view, const std::string&);
template JsonView::Value parse_bounded(std::string_view, const std::string&);

at::ScalarType dtype_of_export(std::int64_t number, const std::string& where) {
  static const std::map<std::int64_t, at::ScalarType> known = {
      {1, at::kByte},        {2, at::kChar},          {3, at::kShort},          {4, at::kInt},
      {5, at::kLong},        {6, at::kHalf},          {7, at::kFloat},          {8, at::kDouble},
      {9, at::kComplexHalf}, {10, at::kComplexFloat}, {11, at::kComplexDouble}, {12, at::kBool},
      {13, at::kBFloat16},   {28, at::kUInt16},       {34, at::kUInt32},        {35, at::kUInt64}};
  const auto found = known.find(number);
  if (found == known.end()) {
    throw DataError(fmt::format("{}: dtype {} of the export format, which is not read", where, number));
  }
  return found->second;
}

ExportArchive ExportArchive::read(const std::filesystem::path& path) {
  const Zip zip(path);
  check_kind(zip);
  const auto name = program_name(zip);
  const auto member = "models/" + name + ".json";
  const auto where = fmt::format("{}: {}", zip.where(), member);
  ExportArchive out{.where = zip.where(),
                    .program = json_member(zip, member),
                    .weights = {},
                    .constants = {},
                    .told = {},
                    .notes = {}};
  const auto version = out.program["schema_version"]["major"].get<std::int64_t>();
  if (version != kMajor) {
    throw DataError(fmt::format("{}: schema version {}, expected {}: save it again with torch 2.8 to 2.14", where,
                                version, kMajor));
  }
  out.weights = read_tensors(zip, "data/weights/", fmt::format("data/weights/{}_weights_config.json", name));
  out.constants = read_tensors(zip, "data/constants/", fmt::format("data/constants/{}_constants_config.json", name));
  if (constexpr const char* kTold = "extra/whence.json"; zip.contains(kTold)) {
    out.told = json_member(zip, kTold);
  }
  return out;
}

}  // namespace whence::detail
