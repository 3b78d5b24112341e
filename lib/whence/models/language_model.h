#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/data/batch.h"

namespace whence {

/// Keys and values that tokens have left in every block: what a text that begins with them goes on from.
struct KeyValueCache {
  TensorList keys, values;  ///< Of each block [R, key heads, tokens, head width].
  std::int64_t size() const { return keys.empty() ? 0 : keys.front().size(2); }
  /// Of the first `tokens` alone: views.
  KeyValueCache first(std::int64_t tokens) const;
};

/// Rows of tokens that all go on from one beginning, and what is wanted of them. Places number the flattened tokens.
struct Continuation {
  at::Tensor tokens;                         ///< [R, T] int64; what pads a row is at its end.
  const KeyValueCache* beginning = nullptr;  ///< Of one row; null: the rows are texts from their start.
  /// [R, T] int64: 0 in a row's trunk, which comes first, k > 0 in a branch, which goes on from the trunk as if there
  /// were no others, -1 where padded. Undefined: all is trunk.
  at::Tensor branches = {};
  std::vector<std::int64_t> layers = {};  ///< Whose residual streams are wanted, as in hidden_states(),
  at::Tensor states_at = {};              ///< [M] at these places.
  at::Tensor predict_at = {};             ///< [P]: where the next token is asked for.
  at::Tensor attention_at = {};           ///< [A]: whose attention weights are wanted.
  bool keep = false;                      ///< Whether keys and values are.
};

/// Undefined or empty where not asked for.
struct ContinuationOutput {
  at::Tensor states;     ///< [layers, M, width]
  at::Tensor logits;     ///< [P, vocabulary], float32 or float64.
  at::Tensor attention;  ///< [blocks, A, beginning and T]: the heads' mean; rows sum to 1.
  KeyValueCache cache;   ///< Of the beginning and the tokens, R rows.
};

/// What a model of texts says of itself besides computing. Its parameters have the names and shapes of its Hugging Face
/// checkpoint, those of a head that belongs to one stage behind its name (Model::head()).
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
  /// The outputs of the classification head that a folder's weights hold, by its config.json: LABEL_0, LABEL_1, …
  /// where that names none; empty where no such head is there. Throws DataError where it names another number of them.
  virtual std::vector<std::string> class_names(const std::filesystem::path& folder) const = 0;
  /// A line for each thing that was assumed about its files and that their owner should know.
  virtual const std::vector<std::string>& notes() const = 0;

  /// The residual stream at every token, after the embeddings (layer 0) and after each block, without the final norm:
  /// for each of `layers` a tensor [R T, width].
  virtual std::vector<at::Tensor> hidden_states(const ParameterSet& theta, const Batch& batch,
                                                const std::vector<std::int64_t>& layers) const = 0;

  /// One forward pass of a causal model, without gradients, that runs no token of the beginning again. The same numbers
  /// as a pass over each text whole, to rounding. Behind a prefix of theta's (addition.h); the cache is of the tokens
  /// alone. Throws InvalidArgument where the model is not causal or a text is longer than its context, where theta has
  /// a prompt, or a prefix and attention is asked for. Memory: keys and values of R (beginning and T) tokens in one
  /// block at a time, in all where they are kept.
  virtual ContinuationOutput go_on(const ParameterSet& theta, const Continuation& continuation) const = 0;

  /// Reads the parameters `expected`, perhaps a part of the model's, from a Hugging Face directory, with the same dtype
  /// and device. Throws DataError naming the file and the tensor where a shard or a tensor is missing, a shape is not
  /// what config.json says, or a tensor is none of such a model's.
  virtual ParameterSet read_directory(const std::filesystem::path& path, const ParameterSet& expected) const = 0;
  /// Writes config.json, model.safetensors and copies of the tokenizer's files, as transformers reads them. `classes`
  /// names the outputs of a classification head; `metadata` stands in the weights' file. The folder appears complete or
  /// not at all. Throws InvalidArgument where it holds what whence did not write: that is left as it is.
  virtual void write_directory(const std::filesystem::path& path, const ParameterSet& theta,
                               const std::vector<std::string>& classes,
                               const std::map<std::string, std::string>& metadata = {}) const = 0;
};

class Model;
/// The model, which is a LanguageModel, that a folder in Hugging Face layout describes: the "transformer" of the
/// registry, whatever the folder is called. An adapter beside the weights is an error, which ends in `otherwise`,
/// unless it is to be ignored.
std::unique_ptr<Model> open_model_folder(const std::filesystem::path& directory, bool ignore_adapter = false,
                                         const std::string& otherwise = {});

}  // namespace whence
