#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/models/detail/transformer_config.h"

namespace whence::detail {

/// A parameter of a model that config.json describes.
struct DeclaredParameter {
  enum class Start { kNormal, kOnes, kZeros };
  std::string name;
  std::vector<std::int64_t> shape;
  Start start = Start::kNormal;
};

/// Whether a directory holds weights: model.safetensors or its index.
bool has_weights(const std::filesystem::path& directory);

/// The tensors of a directory's weights under the names of `declared`, those of its files: with the family's prefix or
/// without, heads behind `head.`. Left out are buffers, copies of tied weights and other tasks' heads. Throws DataError
/// naming the file where a shard is missing, a shape is not the declared one, a dtype is not floating, an entry is not
/// finite, or a tensor is none of the family's.
std::map<std::string, at::Tensor> read_weights(const std::filesystem::path& directory, const TransformerConfig& config,
                                               const std::vector<DeclaredParameter>& declared);

/// Writes config.json for the task that `theta` has a head for, model.safetensors, and copies of the tokenizer's files
/// of `source`.
void write_hugging_face(const std::filesystem::path& directory, const std::filesystem::path& source,
                        const TransformerConfig& config, const ParameterSet& theta,
                        const std::vector<std::string>& classes);

}  // namespace whence::detail
