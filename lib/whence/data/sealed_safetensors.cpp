#include "whence/data/sealed_safetensors.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <charconv>

#include "whence/core/digest.h"
#include "whence/core/error.h"
#include "whence/data/safetensors.h"

namespace whence {
namespace {

constexpr const char* kDigest = "sha256";

/// Whatever the order of the tensors: a file has its own.
std::string digest_of(const ParameterSet& tensors, const std::map<std::string, std::string>& metadata) {
  std::map<std::string, at::Tensor> sorted;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    sorted.emplace(tensors.names()[i], tensors.values()[i]);
  }
  Digest digest;
  for (const auto& [name, value] : sorted) {
    digest.add(name).add(value);
  }
  for (const auto& [key, text] : metadata) {
    digest.add(key).add(text);
  }
  return digest.text();
}

}  // namespace

template <class Number>
Number metadata_number(const std::map<std::string, std::string>& metadata, const std::string& key,
                       const std::filesystem::path& path) {
  const auto found = metadata.find(key);
  const std::string text = found == metadata.end() ? "" : found->second;
  Number value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || !(value >= 0)) {
    throw DataError(fmt::format("{}: metadata {} = \"{}\", expected a number >= 0", path.string(), key, text));
  }
  return value;
}
template std::int64_t metadata_number(const std::map<std::string, std::string>&, const std::string&,
                                      const std::filesystem::path&);
template double metadata_number(const std::map<std::string, std::string>&, const std::string&,
                                const std::filesystem::path&);

void write_sealed(const std::filesystem::path& path, const ParameterSet& tensors,
                  std::map<std::string, std::string> metadata) {
  metadata[kDigest] = digest_of(tensors, metadata);
  write_safetensors(path, tensors, metadata);
}

SealedTensors read_sealed(const std::filesystem::path& path, const std::string& remedy) {
  SealedTensors out;
  const auto mapped = read_safetensors(path);
  for (std::size_t i = 0; i < mapped.size(); ++i) {
    out.tensors.add(mapped.names()[i], mapped.values()[i].clone());
  }
  out.metadata = read_safetensors_metadata(path);
  const auto told = out.metadata.extract(kDigest);
  if (told.empty() || told.mapped() != digest_of(out.tensors, out.metadata)) {
    throw DataError(fmt::format("{} is not as whence wrote it, or of another version: {}", path.string(), remedy));
  }
  return out;
}

ParameterSet read_intact_weights(const std::filesystem::path& path) {
  auto tensors = read_safetensors(path);
  auto metadata = read_safetensors_metadata(path);
  const bool own = metadata.contains("whence");
  if (const auto told = metadata.extract(kDigest);
      own && !told.empty() && told.mapped() != digest_of(tensors, metadata)) {
    throw DataError(fmt::format(
        "{} is not as whence wrote it, but damaged or changed since: train it again, or copy it again; where that was "
        "on purpose, its metadata is not to have \"sha256\"",
        path.string()));
  }
  return tensors;
}

}  // namespace whence
