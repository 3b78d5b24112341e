#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/icl/detail/query_rows.h"
#include "whence/icl/prompt.h"
#include "whence/icl/reading_options.h"
#include "whence/models/text_model.h"

namespace whence::detail {

/// 0 .. count - 1.
Tokens all_of(std::size_t count);

/// What all queries' prompts begin with.
struct Trunk {
  std::vector<Tokens> prompts;        ///< Of each query, whole.
  std::vector<std::int64_t> queries;  ///< Where in each of them the query's own tokens begin.
  Tokens tokens;                      ///< What they have in common.
  std::vector<TokenSpan> demonstrations, outputs;
  std::vector<TokenSpan> read;  ///< Of each demonstration, the places whose states' mean is its state.
  KeyValueCache cache;
  at::Tensor states;     ///< [L, n, d]
  at::Tensor surprisal;  ///< [n]
};

/// What follows the trunk in every prompt.
struct Tails {
  at::Tensor states, attention;                        ///< [L, q, d], [blocks, q, trunk]
  std::vector<std::vector<double>> log_probabilities;  ///< Of each query's answers.
  std::vector<std::int64_t> next;                      ///< The likeliest next token.
};

using Answers = std::vector<std::vector<Tokens>>;  // of each query

/// The passes of a model over a task's prompts: the trunk once, and what follows it in each.
class PromptPasses {
 public:
  /// Throws what PromptReader throws.
  PromptPasses(TextModel model, PromptTask task, ReadingOptions options);
  const PromptWriter& writer() const { return writer_; }
  at::Tensor places(const Tokens& values) const;  ///< As a tensor where the model is.

  /// Tokenizes the prompts of the demonstrations `order`: all of a trunk but what running it gives.
  Trunk lay_out(const Tokens& order) const;
  /// Throws where a prompt with its longest answer passes the context.
  void check_length(const Trunk& trunk, const Answers& answers) const;
  void run(Trunk& trunk) const;
  /// Leaves the states out, and takes over the keys and values of what it has in common with a trunk that was run.
  void run_from(Trunk& trunk, const Trunk& known) const;
  void read_first_half_again(at::Tensor& surprisals) const;
  /// Runs what follows the trunk in every prompt, with each of its answers as a branch.
  Tails tails(const Trunk& trunk, const Answers& answers, bool states) const;
  std::vector<std::string> written(const Trunk& trunk) const;

 private:
  TokenSpan read_in(const TokenizedPrompt& prompt, std::size_t demonstration) const;
  /// [n]: of each output, from the logits at all its tokens' predecessors.
  static at::Tensor surprisal(const Trunk& trunk, const at::Tensor& logits);

  TextModel model_;
  PromptTask task_;
  ReadingOptions options_;
  PromptWriter writer_;
};

}  // namespace whence::detail
