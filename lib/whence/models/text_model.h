#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/models/language_model.h"
#include "whence/text/tokenizer.h"

namespace whence {

/// A model of texts with its weights and its tokenizer, ready to run.
struct TextModel {
  std::shared_ptr<const LanguageModel> language;
  ParameterSet theta;
  Tokenizer tokenizer;
};

/// Reads one from a folder in Hugging Face layout. With `classes` > 0 it has a head for so many, new where the folder
/// has none, in place of one for tokens: an encoder may come without that. Throws DataError where weights or the
/// tokenizer are missing or do not fit config.json, and for an adapter beside the weights.
TextModel read_text_model(const std::filesystem::path& folder, at::ScalarType dtype = at::kFloat,
                          at::Device device = at::kCPU, std::int64_t classes = 0);

/// The files that such a model and its tokenizer are read from, each once: weights first, config.json, tokenizer.json
/// and what lies beside it. Also those that are looked for and not there, since one that appears makes it another
/// model.
std::vector<std::filesystem::path> text_model_files(const std::filesystem::path& folder,
                                                    const std::filesystem::path& tokenizer_json);

}  // namespace whence
