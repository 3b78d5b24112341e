#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/core/progress.h"
#include "whence/icl/icl_method.h"
#include "whence/icl/prompt.h"
#include "whence/models/language_model.h"

namespace whence {

/// Where a demonstration's hidden state is read. A query's is read where its output is about to be predicted, or is the
/// same mean.
enum class ReadingPosition {
  kColumn,  ///< The last token before the output, where it is about to be predicted.
  kLabel,   ///< The output's first token.
  kMean,    ///< The mean over all its tokens before the output, but for the prompt's first.
};
/// "column", "label" or "mean". Throws InvalidArgument with the known words.
ReadingPosition parse_reading_position(std::string_view word);
std::string_view word_of(ReadingPosition position);

/// What demonstrations' outputs are regressed on.
enum class TargetView {
  kAuto,       ///< One-hot where outputs repeat (PromptReading::closed), else embeddings.
  kOneHot,     ///< One column for each distinct output.
  kEmbedding,  ///< The mean of the output's token embeddings less that of all demonstrations' outputs, of length 1.
};
/// "auto", "one-hot" or "embedding". Throws InvalidArgument with the known words.
TargetView parse_target_view(std::string_view word);

struct ReadingOptions {
  std::vector<std::int64_t> layers;  ///< 0 is the embeddings, k the residual stream after block k.
  ReadingPosition position = ReadingPosition::kColumn;
  TargetView targets = TargetView::kAuto;
  bool attention = false;  ///< Fill IclTask::attention.
  /// Fill IclTask::surprisal, each output being read after at least half of the other demonstrations: one more pass
  /// over them, in another order.
  bool surprisal = false;
  std::int64_t batch_size = 64;  ///< Most queries in one pass.
};

/// What a model makes of a prompt.
struct PromptReading {
  IclTask task;  ///< States, labels and targets, and what else the options ask for.
  /// The demonstrations' distinct outputs, in order of first appearance: the classes.
  std::vector<std::string> outputs;
  /// Whether the answer is one of the outputs: where they are at most half as many as the demonstrations, or are all
  /// that the queries' own outputs say.
  bool closed = false;
  /// Of each query: of a closed task the likeliest of the outputs, else what the model writes, greedily.
  std::vector<std::string> predictions;
  /// The output that each query's scores are about: the given one, or where there is none the prediction.
  std::vector<std::string> explained;
  at::Tensor log_probabilities;          ///< [q, C] float64, of each output as the answer; undefined unless closed.
  at::Tensor explained_log_probability;  ///< [q] float64, the sum over the tokens of `explained`.
  at::Tensor predicted_log_probability;  ///< [q] float64, of `predictions`; NaN for an empty one.
  std::int64_t prompt_tokens = 0;        ///< Of the demonstrations.
  std::int64_t longest_query = 0;        ///< Tokens of the longest query.
};

/// PromptReading::closed, which no model is needed for.
bool is_closed(const PromptTask& task);

/// What leaving a demonstration out does to the model's own answers, by running it again. Positive: it helped.
struct Removals {
  at::Tensor log_probability;  ///< [q, n] float64: `explained_log_probability` with the demonstration less without.
  /// The same of the log-probability among the outputs, which no common change of all outputs moves. NaN where what is
  /// explained is none of them; undefined unless closed.
  at::Tensor among_outputs;
};

/// What a text is to a model: the mean over its tokens of the residual stream after `layer` (0: the token embeddings),
/// float64 on the CPU, [texts, width]. Texts longer than the context lose their end. Throws DataError for one without a
/// token.
at::Tensor embed_texts(const LanguageModel& model, const ParameterSet& theta, const Tokenizer& tokenizer,
                       const std::vector<std::string>& texts, std::int64_t layer);

/// Runs a causal model over a task's prompts. The demonstrations are run once for all queries; what follows a place
/// where a prompt changes is all that is run again. Prompts without some demonstrations, or in another order, share the
/// longest beginning that they have in common with the one before.
class PromptReader {
 public:
  /// Keeps references. Throws InvalidArgument where the model is not causal, and what PromptWriter throws.
  PromptReader(const LanguageModel& model, const ParameterSet& theta, const Tokenizer& tokenizer,
               const PromptTask& task, ReadingOptions options);
  const PromptWriter& writer() const { return writer_; }

  /// Of all demonstrations in the task's order, or in `order`, where rows of the result follow the task. Throws
  /// DataError naming the task and the query where a prompt is longer than the model's context, an output has no token,
  /// or the tokens of the demonstrations depend on the query.
  PromptReading read();
  at::Tensor states_in_order(const std::vector<std::int64_t>& order);  ///< [L, n, d], rows in the task's order.
  /// What outputs [n, e] and explained outputs [q, e] are in the eyes of TargetView::kEmbedding; NaN for an empty one.
  std::pair<at::Tensor, at::Tensor> embedded_targets(const std::vector<std::string>& explained);
  /// Cost: for each demonstration the tokens after it and those of every query. `reading` is read()'s.
  Removals remove_each(const PromptReading& reading, const Progress& progress);

 private:
  /// What all queries' prompts begin with.
  struct Trunk {
    std::vector<std::vector<std::int64_t>> prompts;  // of each query, whole
    std::vector<std::int64_t> queries;               // where in each of them the query's own tokens begin
    std::vector<std::int64_t> tokens;                // what they have in common
    std::vector<TokenSpan> demonstrations, outputs;
    std::vector<TokenSpan> read;  // of each demonstration
    KeyValueCache cache;
    at::Tensor states;     // [L, n, d]
    at::Tensor surprisal;  // [n]
  };
  struct Tails {
    at::Tensor states, attention;                        // [L, q, d], [blocks, q, trunk]
    std::vector<std::vector<double>> log_probabilities;  // of each query's answers
    std::vector<std::int64_t> next;                      // the likeliest next token
  };
  using Answers = std::vector<std::vector<std::vector<std::int64_t>>>;  // of each query, tokens

  /// Whose states' mean is a demonstration's.
  TokenSpan read_in(const TokenizedPrompt& prompt, std::size_t demonstration) const;
  /// Tokenizes the prompts of the demonstrations `order`: all of a trunk but what running it gives.
  Trunk lay_out(const std::vector<std::int64_t>& order) const;
  void run(Trunk& trunk) const;
  /// Leaves the states out, and takes over the keys and values of what it has in common with a trunk that was run.
  void run_from(Trunk& trunk, const Trunk& known) const;
  void read_first_half_again(at::Tensor& surprisals) const;
  /// [n]: of each output, from the logits at all its tokens' predecessors.
  static at::Tensor surprisal(const Trunk& trunk, const at::Tensor& logits);
  /// Runs what follows the trunk in every prompt, with each of its answers as a branch.
  Tails tails(const Trunk& trunk, const Answers& answers, bool states) const;
  std::vector<std::string> written(const Trunk& trunk) const;
  /// Fills in predictions, log-probabilities and what is explained where no output is given.
  void predict(PromptReading& reading, const Tails& found);
  IclTask icl_task(const PromptReading& reading, const Tails& found);
  at::Tensor places(const std::vector<std::int64_t>& values) const;
  /// Throws where a prompt with its longest answer passes the context.
  void check_length(const Trunk& trunk, const Answers& answers) const;
  Answers answers_of(const PromptReading& reading) const;

  const LanguageModel& model_;
  const ParameterSet& theta_;
  const Tokenizer& tokenizer_;
  const PromptTask& task_;
  ReadingOptions options_;
  PromptWriter writer_;
  Trunk whole_;  // of all demonstrations, once read
};

}  // namespace whence
