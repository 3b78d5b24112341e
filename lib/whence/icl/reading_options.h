#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

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

}  // namespace whence
