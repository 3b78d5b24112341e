#include "whence/icl/text_embedding.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "whence/core/error.h"
#include "whence/models/ops.h"

namespace whence {

at::Tensor embed_tokens(const LanguageModel& model, const ParameterSet& theta, const std::vector<std::int64_t>& tokens,
                        std::int64_t layer) {
  const at::NoGradGuard no_gradient;
  const DerivativeOrder first(1);
  const auto length = static_cast<std::int64_t>(tokens.size());
  const auto options = at::TensorOptions(theta.values().front().device()).dtype(at::kLong);
  Batch batch;
  batch.inputs = at::tensor(tokens, at::kLong).to(options).unsqueeze(0);
  batch.text.emplace();
  batch.text->tokens.plain = true;
  batch.text->examples = at::zeros({1, length}, options);
  batch.text->positions = at::arange(length, options).unsqueeze(0);
  batch.text->lengths = at::full({1}, length, options);
  return model.hidden_states(theta, batch, {layer})[0].to(at::kCPU, at::kDouble).mean(0);
}

at::Tensor embed_texts(const LanguageModel& model, const ParameterSet& theta, const Tokenizer& tokenizer,
                       const std::vector<std::string>& texts, std::int64_t layer) {
  TensorList rows;
  for (const auto& text : texts) {
    const auto ids = tokenizer.encode(text).ids;
    if (ids.empty()) {
      throw DataError(fmt::format("the text \"{}\" has no token", text));
    }
    const auto length = std::min(ids.size(), static_cast<std::size_t>(model.context()));
    rows.push_back(
        embed_tokens(model, theta,
                     std::vector<std::int64_t>(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(length)), layer));
  }
  return at::stack(rows);
}

}  // namespace whence
