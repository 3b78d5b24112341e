#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/models/language_model.h"
#include "whence/text/tokenizer.h"

namespace whence {

/// What tokens are to a model: the mean over them of the residual stream after `layer` (0: the token embeddings),
/// [width] float64 on the CPU.
at::Tensor embed_tokens(const LanguageModel& model, const ParameterSet& theta, const std::vector<std::int64_t>& tokens,
                        std::int64_t layer);

/// The same of texts, [texts, width]. Those longer than the context lose their end. Throws DataError for one without a
/// token.
at::Tensor embed_texts(const LanguageModel& model, const ParameterSet& theta, const Tokenizer& tokenizer,
                       const std::vector<std::string>& texts, std::int64_t layer);

}  // namespace whence
