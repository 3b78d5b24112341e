#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "whence/icl/prompt.h"

namespace whence::detail {

using Tokens = std::vector<std::int64_t>;

/// How what follows a trunk that all queries share is laid out for one pass: one row a query, the rest of its prompt,
/// then all but the last token of each answer, as branches (Continuation::branches).
struct QueryRow {
  std::int64_t query = 0;
  Tokens tokens, branches;
  TokenSpan read;  ///< Its places whose states are wanted, to the rest's last.
  Tokens predict;  ///< Where the tokens of the answers are predicted, one after the other.

  std::int64_t last() const { return read.end - 1; }
};

/// Of a prompt whose first `shared` tokens are the trunk's and whose states are wanted from `read_from` on.
QueryRow row_of(std::size_t query, const Tokens& prompt, std::int64_t shared, std::int64_t read_from,
                const std::vector<Tokens>& answers);

/// Rows one below the other, padded to the longest; places number the whole.
struct QueryBlock {
  Tokens tokens, branches, last, predict;
  std::vector<TokenSpan> read;
  std::int64_t width = 0;
  bool plain = true;  ///< All trunk, nothing padded.
};

QueryBlock block_of(std::span<const QueryRow> rows);

/// The rows from `begin` that one pass takes; the longer ones come later.
std::size_t block_end(std::span<const QueryRow> rows, std::size_t begin, std::int64_t batch_size);

/// Every place of the spans, one span after the other: M of them.
Tokens places_in(std::span<const TokenSpan> spans);

/// The mean of the states at places_in(spans), for each span: [L, M, d] to [L, spans, d].
at::Tensor span_means(const at::Tensor& states, std::span<const TokenSpan> spans);

}  // namespace whence::detail
