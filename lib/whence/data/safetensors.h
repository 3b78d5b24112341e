#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "whence/core/parameters.h"

namespace whence {

/// Reads a safetensors file (.gz too). Throws DataError, naming the file and the byte, if the header is not JSON, a
/// dtype is unknown, a tensor's range leaves the file, overlaps another or does not fit its shape, or a size overflows.
/// Maps the file; tensors stay valid after it is deleted but not truncated. Tensors come in the order in which their
/// bytes lie.
ParameterSet read_safetensors(const std::filesystem::path& path);

/// The "__metadata__" of a safetensors file; empty where it has none.
std::map<std::string, std::string> read_safetensors_metadata(const std::filesystem::path& path);

/// Writes atomically; the file is byte for byte the same for the same tensors. Wider dtypes come first, so that all are
/// aligned; within a dtype's width the order of the set is kept. Throws InvalidArgument for a dtype that the format
/// lacks.
void write_safetensors(const std::filesystem::path& path, const ParameterSet& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace whence
