#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/data/batch.h"

namespace whence {

/// What a model of texts says of itself besides computing. Its parameters have the names and shapes of its Hugging Face
/// checkpoint, those of a head that belongs to one stage behind `head.`.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  /// Tokens it knows are 0 .. vocabulary() - 1.
  virtual std::int64_t vocabulary() const = 0;
  /// The most tokens of a text.
  virtual std::int64_t context() const = 0;
  /// Transformer blocks, one after the other.
  virtual std::int64_t blocks() const = 0;
  /// Whether a place sees only the places before it, and so can be asked for the next token.
  virtual bool causal() const = 0;
  /// The directory that describes it: config.json, and where it has them tokenizer.json and weights.
  virtual const std::filesystem::path& directory() const = 0;

  /// The residual stream at every token, after the embeddings (layer 0) and after each block, without the final norm:
  /// for each of `layers` a tensor [R T, width].
  virtual std::vector<at::Tensor> hidden_states(const ParameterSet& theta, const Batch& batch,
                                                const std::vector<std::int64_t>& layers) const = 0;

  /// Reads the parameters `expected`, perhaps a part of the model's, from a Hugging Face directory, with the same dtype
  /// and device. Throws DataError naming the file and the tensor where a shard or a tensor is missing, a shape is not
  /// what config.json says, or a tensor is none of such a model's.
  virtual ParameterSet read_directory(const std::filesystem::path& path, const ParameterSet& expected) const = 0;
  /// Writes config.json, model.safetensors and copies of the tokenizer's files, as transformers reads them. `classes`
  /// names the outputs of a classification head. Files appear whole or not at all.
  virtual void write_directory(const std::filesystem::path& path, const ParameterSet& theta,
                               const std::vector<std::string>& classes) const = 0;
};

}  // namespace whence
