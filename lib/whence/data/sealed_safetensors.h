#pragma once
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

/// Throws what read_safetensors() throws, and DataError for a file that is other than what was written.
SealedTensors read_sealed(const std::filesystem::path& path);

}  // namespace whence
