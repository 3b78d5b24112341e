#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/core/progress.h"
#include "whence/icl/icl_method.h"
#include "whence/icl/prompt.h"
#include "whence/icl/reading_options.h"
#include "whence/models/text_model.h"

namespace whence {

namespace detail {
class PromptPasses;
struct Tails;
struct Trunk;
}  // namespace detail

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

/// Runs a causal model over a task's prompts. The demonstrations are run once for all queries; what follows a place
/// where a prompt changes is all that is run again. Prompts without some demonstrations, or in another order, share the
/// longest beginning that they have in common with the one before.
class PromptReader {
 public:
  /// Throws InvalidArgument where the model is not causal, and what PromptWriter throws.
  PromptReader(TextModel model, PromptTask task, ReadingOptions options);
  PromptReader(PromptReader&&) noexcept;
  ~PromptReader();
  const PromptWriter& writer() const;

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
  /// Of each query, the tokens of every answer that a reading asks for: the outputs where it is closed, and what is
  /// explained.
  std::vector<std::vector<std::vector<std::int64_t>>> answers_of(const PromptReading& reading) const;
  /// Fills in predictions, log-probabilities and what is explained where no output is given.
  void predict(PromptReading& reading, const detail::Tails& found);
  IclTask icl_task(const PromptReading& reading, const detail::Tails& found);

  TextModel model_;
  PromptTask task_;
  ReadingOptions options_;
  std::unique_ptr<detail::PromptPasses> passes_;
  std::unique_ptr<detail::Trunk> whole_;  // of all demonstrations, once read
};

}  // namespace whence
