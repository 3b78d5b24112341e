#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "whence/core/parameters.h"

namespace whence {

/// A safetensors file that whence wrote for itself and goes on from: a digest in its metadata ("sha256") tells whether
/// it is still what was written. Cost: SHA-256 of the values, 0.5 to 2 s a GB.
struct SealedTensors {
  ParameterSet tensors;  ///< Copies, whose bits and places do not depend on the file.
  std::map<std::string, std::string> metadata;
};

/// As write_safetensors().
void write_sealed(const std::filesystem::path& path, const ParameterSet& tensors,
                  std::map<std::string, std::string> metadata);

/// Throws what read_safetensors() throws, and DataError, with the remedy, for a file that is other than what was
/// written. A seal is no signature: what is read may still come from anybody.
SealedTensors read_sealed(const std::filesystem::path& path,
                          const std::string& remedy = "remove it to have it made again");

/// Weights, of whoever wrote them, mapped as read_safetensors() does: a file that whence wrote, as the key "whence" of
/// its metadata says, has a seal that must hold; any other is taken as it is. Throws what read_safetensors() throws,
/// and DataError where the seal does not hold. Cost: of whence's own files SHA-256 of the values, 0.5 to 2 s a GB.
ParameterSet read_intact_weights(const std::filesystem::path& path);

/// The number >= 0 under a key of a file's metadata. Throws DataError where there is none. Number: std::int64_t,
/// double.
template <class Number>
Number metadata_number(const std::map<std::string, std::string>& metadata, const std::string& key,
                       const std::filesystem::path& path);
extern template std::int64_t metadata_number(const std::map<std::string, std::string>&, const std::string&,
                                             const std::filesystem::path&);
extern template double metadata_number(const std::map<std::string, std::string>&, const std::string&,
                                       const std::filesystem::path&);

}  // namespace whence
