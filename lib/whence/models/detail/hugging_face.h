#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/models/detail/transformer_parameters.h"

namespace whence::detail {

/// Whether a head of another size than the declared one is an error, or left out as another task's.
enum class Heads { kAll, kThatFit };

/// The tensors of `files` (weight_files()) under the names of `declared`, those of the files: with the family's prefix
/// or without, heads behind `head.`. Left out are buffers, copies of tied weights and other tasks' heads. Throws
/// DataError naming the file where a shape is not the declared one, a dtype is not floating, an entry is not finite, or
/// a tensor is none of the family's.
std::map<std::string, at::Tensor> read_weights(const std::vector<std::filesystem::path>& files,
                                               const TransformerConfig& config,
                                               const std::vector<DeclaredParameter>& declared, Heads heads);

/// Whether the vocabulary's head is there and is not the embedding: transformers then does not tie them, whatever
/// config.json says.
bool has_own_head(const std::vector<std::filesystem::path>& files, const TransformerConfig& config);
/// Outputs of the classification head that is there; 0 without one, and where it is another task's of that name.
std::int64_t class_outputs(const std::vector<std::filesystem::path>& files, const TransformerConfig& config);

/// Whether the folder's weights were written by write_hugging_face().
bool is_by_whence(const std::filesystem::path& directory);

/// Writes config.json for the task that `theta` has a head for, model.safetensors, and copies of the tokenizer's files
/// of `source`; `metadata` stands in the weights' file. The folder appears complete. Throws InvalidArgument where it
/// holds what whence did not write.
void write_hugging_face(const std::filesystem::path& directory, const std::filesystem::path& source,
                        const TransformerConfig& config, const ParameterSet& theta,
                        const std::vector<std::string>& classes, std::map<std::string, std::string> metadata);

}  // namespace whence::detail
