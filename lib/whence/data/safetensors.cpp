#include "whence/data/safetensors.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/data/detail/bytes.h"

namespace whence {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::uint64_t kLengthBytes = 8;              // the file starts with its header's length, little-endian
constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's own limit
constexpr std::size_t kMostDimensions = 64;            // what torch computes with
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kCutShort = ": the file is cut short; copy or download it again";

struct Dtype {
  std::string_view name;
  at::ScalarType type;
};
constexpr Dtype kDtypes[] = {{"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf},  {"BF16", at::kBFloat16},
                             {"I64", at::kLong},   {"I32", at::kInt},   {"I16", at::kShort}, {"I8", at::kChar},
                             {"U8", at::kByte},    {"BOOL", at::kBool}};

std::string dtype_names() {
  std::string names;
  for (const auto& dtype : kDtypes) {
    names += (names.empty() ? "" : ", ") + std::string(dtype.name);
  }
  return names;
}

[[noreturn]] void damaged(const fs::path& path, const std::string& what) {
  throw DataError(fmt::format("{}: {}", path.string(), what));
}

/// What a file that is no safetensors looks like; empty where it looks like nothing known.
std::string_view looks_like(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 64));
  static constexpr std::pair<std::string_view, std::string_view> kBeginnings[] = {
      {"PK\x03\x04", "a zip archive, as PyTorch's .pt, .pth and .bin are"},
      {"\x80\x02", "a Python pickle"},
      {"\x80\x03", "a Python pickle"},
      {"\x80\x04", "a Python pickle"},
      {"\x80\x05", "a Python pickle"},
      {"\x89HDF", "an HDF5 file, as Keras' .h5 are"},
      {"GGUF", "a GGUF file, as llama.cpp has them"},
      {"\x93NUMPY", "a NumPy array"},
      {"\x1f\x8b", "a gzip stream: its name must end in .gz"},
      {"<", "a page of HTML or XML: a download that failed"},
      {"{", "JSON"}};
  for (const auto& [beginning, name] : kBeginnings) {
    if (text.starts_with(beginning)) {
      return name;
    }
  }
  return {};
}

/// The header and where the tensors' bytes begin.
struct Header {
  json entries;
  std::uint64_t data_begin = 0;
};

Header read_header(const fs::path& path, std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) {
    damaged(path, fmt::format("{} bytes, expected at least the {} of a safetensors header's length", bytes.size(),
                              kLengthBytes));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  const bool opens = bytes.size() > kLengthBytes && std::to_integer<char>(bytes[kLengthBytes]) == '{';
  if (const auto kind = looks_like(bytes); !kind.empty() && !opens) {
    damaged(path, fmt::format("this is {}; expected a safetensors file", kind));
  }
  if (length > kLongestHeader) {
    damaged(path, fmt::format("header length {} at byte 0, expected at most {}", length, kLongestHeader));
  }
  if (length > bytes.size() - kLengthBytes) {
    damaged(path, fmt::format("header length {} at byte 0, but only {} bytes follow{}", length,
                              bytes.size() - kLengthBytes, opens ? kCutShort : ""));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  Header header{parse_json(text, path.string() + ": the header",
                           {.depth = 3, .repeated_keys = false, .first_byte = kLengthBytes}),
                kLengthBytes + length};
  if (!header.entries.is_object()) {
    damaged(path, fmt::format("the header at byte {} is a JSON {}, expected an object", kLengthBytes,
                              header.entries.type_name()));
  }
  return header;
}

/// Takes "__metadata__" out of the header.
std::map<std::string, std::string> take_metadata(const fs::path& path, json& entries) {
  std::map<std::string, std::string> metadata;
  const auto found = entries.find(kMetadata);
  if (found == entries.end()) {
    return metadata;
  }
  if (!found->is_object()) {
    damaged(path, fmt::format("{} is a JSON {}, expected an object", kMetadata, found->type_name()));
  }
  for (const auto& [key, value] : found->items()) {
    if (!value.is_string()) {
      damaged(path, fmt::format("{} \"{}\" is a JSON {}, expected a string", kMetadata, key, value.type_name()));
    }
    metadata[key] = value.get<std::string>();
  }
  entries.erase(found);
  return metadata;
}

/// Where one tensor lies: bytes begin .. end-1 of the data.
struct Entry {
  std::string name;
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
  std::int64_t begin, end;
};

std::vector<std::int64_t> read_sizes(const fs::path& path, const std::string& tensor, const json& entry,
                                     const char* key) {
  const auto found = entry.find(key);
  std::vector<std::int64_t> sizes;
  bool good = found != entry.end() && found->is_array();
  for (std::size_t i = 0; good && i < found->size(); ++i) {
    const auto& size = (*found)[i];
    good = size.is_number_unsigned() && size.get<std::uint64_t>() <= INT64_MAX;
    sizes.push_back(good ? size.get<std::int64_t>() : 0);
  }
  if (!good) {
    damaged(path, fmt::format("tensor \"{}\": {} is {}, expected a list of numbers in [0, 2^63)", tensor, key,
                              found == entry.end() ? "missing" : brief(*found)));
  }
  return sizes;
}

Entry read_entry(const fs::path& path, const std::string& name, const json& value, std::int64_t data_bytes) {
  if (!value.is_object() || !value.contains("dtype")) {
    damaged(path, fmt::format("tensor \"{}\" has no dtype", name));
  }
  const auto& given = value["dtype"];
  const auto* const dtype = std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const Dtype& d) {
    return given.is_string() && given == std::string(d.name);
  });
  if (dtype == std::end(kDtypes)) {
    damaged(path, fmt::format("tensor \"{}\": dtype {}, expected one of {}", name, brief(given), dtype_names()));
  }
  Entry entry{name, dtype->type, read_sizes(path, name, value, "shape"), 0, 0};
  if (entry.shape.size() > kMostDimensions) {
    damaged(path, fmt::format("tensor \"{}\" has {} dimensions, expected at most {}", name, entry.shape.size(),
                              kMostDimensions));
  }
  const auto bytes = detail::checked_bytes(entry.shape, static_cast<std::int64_t>(c10::elementSize(dtype->type)));
  if (!bytes) {
    damaged(path, fmt::format("tensor \"{}\": the size of shape [{}] overflows", name, fmt::join(entry.shape, ", ")));
  }
  const auto offsets = read_sizes(path, name, value, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes) {
    const bool cut = offsets.size() == 2 && offsets[0] <= offsets[1] && offsets[1] - offsets[0] == *bytes;
    damaged(path, fmt::format("tensor \"{}\": data_offsets [{}], expected two in order within the {} bytes of data{}",
                              name, fmt::join(offsets, ", "), data_bytes, cut ? kCutShort : ""));
  }
  entry.begin = offsets[0];
  entry.end = offsets[1];
  if (entry.end - entry.begin != *bytes) {
    damaged(path, fmt::format("tensor \"{}\": {} bytes at byte {} of the data, expected {} for {} [{}]", name,
                              entry.end - entry.begin, entry.begin, *bytes, dtype->name, fmt::join(entry.shape, ", ")));
  }
  return entry;
}

/// All entries, in the order of their bytes, which must fill the data without overlap or hole.
std::vector<Entry> read_entries(const fs::path& path, const json& tensors, std::int64_t data_bytes) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : tensors.items()) {
    entries.push_back(read_entry(path, name, value, data_bytes));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::int64_t expected = 0;
  for (const auto& entry : entries) {
    if (entry.begin != expected) {
      damaged(path, fmt::format("tensor \"{}\" {} byte {} of the data: it begins at {}", entry.name,
                                entry.begin < expected ? "overlaps another before" : "leaves a hole from", expected,
                                entry.begin));
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    damaged(path, fmt::format("bytes {} to {} of the data belong to no tensor", expected, data_bytes));
  }
  return entries;
}

/// A byte other than 0 and 1 is no bool to C++.
void check_bools(const fs::path& path, const Entry& entry, std::span<const std::byte> bytes) {
  const auto bad = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return std::to_integer<int>(b) > 1; });
  if (bad != bytes.end()) {
    damaged(path, fmt::format("tensor \"{}\": byte {} of its data is {}, expected 0 or 1 for BOOL", entry.name,
                              bad - bytes.begin(), std::to_integer<int>(*bad)));
  }
}

}  // namespace

ParameterSet read_safetensors(const fs::path& path) {
  const auto file = open_bytes(path);
  auto header = read_header(path, file->bytes());
  take_metadata(path, header.entries);
  const auto data = file->bytes().subspan(header.data_begin);
  ParameterSet tensors;
  for (auto& entry : read_entries(path, header.entries, static_cast<std::int64_t>(data.size()))) {
    const auto begin = static_cast<std::size_t>(entry.begin);
    if (entry.dtype == at::kBool) {
      check_bools(path, entry, data.subspan(begin, static_cast<std::size_t>(entry.end) - begin));
    }
    auto tensor = detail::mapped_tensor(file, header.data_begin + begin, entry.shape, entry.dtype);
    tensors.add(std::move(entry.name), std::move(tensor));
  }
  return tensors;
}

std::map<std::string, std::string> read_safetensors_metadata(const fs::path& path) {
  const auto file = open_bytes(path);
  auto header = read_header(path, file->bytes());
  return take_metadata(path, header.entries);
}

void write_safetensors(const fs::path& path, const ParameterSet& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<std::size_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  const auto& values = tensors.values();
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a].element_size() > values[b].element_size(); });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    header[kMetadata] = metadata;
  }
  std::int64_t offset = 0;
  for (const auto i : order) {
    const auto& name = tensors.names()[i];
    const auto* const dtype = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                           [&](const Dtype& d) { return d.type == values[i].scalar_type(); });
    if (dtype == std::end(kDtypes)) {
      throw InvalidArgument(fmt::format("{}: tensor \"{}\" is {}, expected one of {}", path.string(), name,
                                        c10::toString(values[i].scalar_type()), dtype_names()));
    }
    if (name == kMetadata) {
      throw InvalidArgument(fmt::format("{}: no tensor may be named {}", path.string(), kMetadata));
    }
    const auto end = offset + values[i].numel() * values[i].element_size();
    header[name] = {{"dtype", dtype->name}, {"shape", values[i].sizes().vec()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    throw InvalidArgument(fmt::format("{}: a name or the metadata is not UTF-8", path.string()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  write_atomically(path, [&](std::ostream& out) {
    const std::uint64_t length = text.size();
    out.write(reinterpret_cast<const char*>(&length), kLengthBytes);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const auto i : order) {
      const auto value = values[i].detach().to(at::kCPU).contiguous();
      out.write(static_cast<const char*>(value.const_data_ptr()),
                static_cast<std::streamsize>(value.numel() * value.element_size()));
    }
  });
}

}  // namespace whence
