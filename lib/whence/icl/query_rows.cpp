#include "whence/icl/detail/query_rows.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "whence/core/tensors.h"

namespace whence::detail {

QueryRow row_of(std::size_t query, const Tokens& prompt, std::int64_t shared, std::int64_t read_from,
                const std::vector<Tokens>& answers) {
  QueryRow row{.query = static_cast<std::int64_t>(query),
               .tokens = {},
               .branches = {},
               .read = {read_from - shared, static_cast<std::int64_t>(prompt.size()) - shared},
               .predict = {}};
  row.tokens.assign(prompt.begin() + shared, prompt.end());
  row.branches.assign(row.tokens.size(), 0);
  for (std::size_t a = 0; a < answers.size(); ++a) {
    for (std::size_t t = 0; t < answers[a].size(); ++t) {
      row.predict.push_back(t == 0 ? row.last() : static_cast<std::int64_t>(row.tokens.size()) - 1);
      if (t + 1 < answers[a].size()) {
        row.tokens.push_back(answers[a][t]);
        row.branches.push_back(static_cast<std::int64_t>(a) + 1);
      }
    }
  }
  return row;
}

QueryBlock block_of(std::span<const QueryRow> rows) {
  QueryBlock block;
  for (const auto& row : rows) {
    block.width = std::max(block.width, static_cast<std::int64_t>(row.tokens.size()));
  }
  for (const auto& row : rows) {
    const auto start = static_cast<std::int64_t>(block.tokens.size());
    block.plain = block.plain && row.read.end == block.width;
    block.last.push_back(start + row.last());
    block.read.push_back({start + row.read.begin, start + row.read.end});
    for (const auto place : row.predict) {
      block.predict.push_back(start + place);
    }
    block.tokens.insert(block.tokens.end(), row.tokens.begin(), row.tokens.end());
    block.branches.insert(block.branches.end(), row.branches.begin(), row.branches.end());
    block.tokens.resize(static_cast<std::size_t>(start + block.width), row.tokens.front());
    block.branches.resize(static_cast<std::size_t>(start + block.width), -1);
  }
  return block;
}

std::size_t block_end(std::span<const QueryRow> rows, std::size_t begin, std::int64_t batch_size) {
  constexpr std::size_t kTokens = 2048;  // more gain nothing
  constexpr std::size_t kPlaces = 512;   // each has logits for the whole vocabulary
  constexpr std::size_t kPadding = 64;   // tokens that cost about what another pass does
  std::size_t end = begin, tokens = 0, places = 0;
  while (end < rows.size() && end - begin < static_cast<std::size_t>(batch_size)) {
    const auto padded = rows[end].tokens.size() * (end + 1 - begin);
    tokens += rows[end].tokens.size();
    places += rows[end].predict.size() + 1;
    if (end > begin && (padded > kTokens || padded > tokens + kPadding || places > kPlaces)) {
      break;
    }
    ++end;
  }
  return end;
}

Tokens places_in(std::span<const TokenSpan> spans) {
  Tokens out;
  for (const auto& span : spans) {
    for (auto t = span.begin; t < span.end; ++t) {
      out.push_back(t);
    }
  }
  return out;
}

at::Tensor span_means(const at::Tensor& states, std::span<const TokenSpan> spans) {
  const auto count = static_cast<std::int64_t>(spans.size());
  if (states.size(1) == count) {
    return states;
  }
  TensorList means;
  std::int64_t at = 0;
  for (const auto& span : spans) {
    const auto length = span.end - span.begin;
    means.push_back(states.narrow(1, at, length).mean({1}, /*keepdim=*/false, at::kDouble));
    at += length;
  }
  return at::stack(means, 1);
}

}  // namespace whence::detail
