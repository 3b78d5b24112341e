#include "whence/icl/detail/prompt_passes.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/core/tensors.h"

namespace whence::detail {
namespace {

constexpr std::size_t kMostWritten = 48;  // tokens of an answer that a model writes itself

std::int64_t common_beginning(const Tokens& a, const Tokens& b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

/// The places whose logits predict the outputs' tokens, one output after the other.
Tokens before_outputs(const std::vector<TokenSpan>& outputs) {
  Tokens out;
  for (const auto& output : outputs) {
    for (auto t = output.begin; t < output.end; ++t) {
      out.push_back(t - 1);
    }
  }
  return out;
}

/// The log-probability of each of `tokens` by the logits of its row: [M] float64 on the CPU.
at::Tensor picked_log_probabilities(const at::Tensor& logits, const at::Tensor& tokens) {
  TensorList parts{at::empty({0}, at::kDouble)};
  in_chunks(logits.size(0), 16 * logits.size(1), [&](std::int64_t begin, std::int64_t length) {
    const auto rows = at::log_softmax(logits.narrow(0, begin, length).to(at::kDouble), 1);
    parts.push_back(rows.gather(1, tokens.narrow(0, begin, length).unsqueeze(1)).squeeze(1).cpu());
  });
  return at::cat(parts);
}

}  // namespace

Tokens all_of(std::size_t count) {
  Tokens order(count);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  return order;
}

PromptPasses::PromptPasses(TextModel model, PromptTask task, ReadingOptions options)
    : model_(std::move(model)), task_(std::move(task)), options_(std::move(options)), writer_(task_, model_.tokenizer) {
  if (!model_.language->causal()) {
    throw InvalidArgument(
        fmt::format("{}: the model looks both ways, expected a causal one, which writes answers to prompts",
                    model_.language->directory().string()));
  }
}

at::Tensor PromptPasses::places(const Tokens& values) const {
  return at::tensor(values, at::kLong).to(model_.theta.values().front().device());
}

TokenSpan PromptPasses::read_in(const TokenizedPrompt& prompt, std::size_t demonstration) const {
  const auto column = prompt.columns[demonstration], label = prompt.labels[demonstration];
  switch (options_.position) {
    case ReadingPosition::kColumn:
      return {column, column + 1};
    case ReadingPosition::kLabel:
      return {label, label + 1};
    case ReadingPosition::kMean: {
      // of the prompt's first token, where attention rests that has nothing to look at, the state is ten times longer
      // than any other and the same for every text
      const auto begin = std::max<std::int64_t>(prompt.demonstrations[demonstration].begin, 1);
      return {std::min(begin, column), column + 1};
    }
  }
  throw InvalidArgument("unknown ReadingPosition");
}

Trunk PromptPasses::lay_out(const Tokens& order) const {
  Trunk out;
  std::int64_t shared = 0;
  for (std::size_t j = 0; j < task_.queries.size(); ++j) {
    auto prompt = writer_.tokenize(order, task_.queries[j]);
    const auto most = *std::max_element(prompt.tokens.begin(), prompt.tokens.end());
    if (most >= model_.language->vocabulary()) {
      throw DataError(fmt::format(
          "task {}: the tokenizer has a token {}, but the model knows 0 to {}: it is another model's tokenizer",
          task_.name, most, model_.language->vocabulary() - 1));
    }
    out.queries.push_back(prompt.query);
    if (j == 0) {
      for (std::size_t i = 0; i < order.size(); ++i) {
        out.read.push_back(read_in(prompt, i));
      }
      out.demonstrations = prompt.demonstrations;
      out.outputs = prompt.outputs;
      shared = prompt.query;
    } else {
      shared = std::min({shared, prompt.query, common_beginning(prompt.tokens, out.prompts.front())});
    }
    out.prompts.push_back(std::move(prompt.tokens));
  }
  const auto needed = order.empty() ? 0 : options_.surprisal ? out.outputs.back().end : out.read.back().end;
  if (needed > shared) {
    throw DataError(
        fmt::format("task {}: the last demonstration's tokens depend on the query behind them; expected a separator "
                    "that keeps them apart, such as an empty line, got \"{}\"",
                    task_.name, task_.separator));
  }
  out.tokens.assign(out.prompts.front().begin(), out.prompts.front().begin() + shared);
  return out;
}

void PromptPasses::check_length(const Trunk& trunk, const Answers& answers) const {
  const auto context = model_.language->context();
  std::int64_t most = 0, room = context;  // of the longest prompt; left by every query for demonstrations
  std::size_t longest = 0;
  for (std::size_t j = 0; j < answers.size(); ++j) {
    std::size_t answer = 0;
    for (const auto& one : answers[j]) {
      answer = std::max(answer, one.size());
    }
    const auto tokens = static_cast<std::int64_t>(trunk.prompts[j].size() + answer);
    room = std::min(room, context - (tokens - trunk.queries[j]));
    longest = tokens > most ? j : longest;
    most = std::max(most, tokens);
  }
  if (most > context) {
    const auto begin = std::count_if(trunk.demonstrations.begin(), trunk.demonstrations.end(),
                                     [&](const TokenSpan& span) { return span.begin <= room; });
    throw DataError(fmt::format(
        "task {}: the prompt of query {} has {} tokens with its answer, expected at most the model's "
        "context of {}: give shorter demonstrations, or fewer (the first {} of {} fit)",
        task_.name, longest, most, context, std::max<std::int64_t>(0, begin - 1), trunk.demonstrations.size()));
  }
}

void PromptPasses::run(Trunk& trunk) const {
  Continuation continuation{.tokens = places(trunk.tokens).unsqueeze(0),
                            .layers = options_.layers,
                            .states_at = places(places_in(trunk.read)),
                            .keep = true};
  if (options_.surprisal) {
    continuation.predict_at = places(before_outputs(trunk.outputs));
  }
  auto pass = model_.language->go_on(model_.theta, continuation);
  trunk.cache = std::move(pass.cache);
  trunk.states = span_means(pass.states, trunk.read);
  if (options_.surprisal) {
    trunk.surprisal = surprisal(trunk, pass.logits);
  }
}

void PromptPasses::run_from(Trunk& trunk, const Trunk& known) const {
  const auto taken = common_beginning(trunk.tokens, known.tokens);
  if (taken > 0) {
    trunk.cache = known.cache.first(taken);
  }
  const Tokens rest(trunk.tokens.begin() + taken, trunk.tokens.end());
  if (!rest.empty()) {
    trunk.cache = model_.language
                      ->go_on(model_.theta, {.tokens = places(rest).unsqueeze(0),
                                             .beginning = taken > 0 ? &trunk.cache : nullptr,
                                             .keep = true})
                      .cache;
  }
}

at::Tensor PromptPasses::surprisal(const Trunk& trunk, const at::Tensor& logits) {
  Tokens tokens;
  for (const auto& output : trunk.outputs) {
    tokens.insert(tokens.end(), trunk.tokens.begin() + output.begin, trunk.tokens.begin() + output.end);
  }
  const auto logs = picked_log_probabilities(logits, at::tensor(tokens, at::kLong).to(logits.device()));
  auto out = at::empty({static_cast<std::int64_t>(trunk.outputs.size())}, at::kDouble);
  std::int64_t row = 0;
  for (std::size_t i = 0; i < trunk.outputs.size(); ++i) {
    const auto length = trunk.outputs[i].end - trunk.outputs[i].begin;
    out[static_cast<std::int64_t>(i)] = -logs.narrow(0, row, length).sum();
    row += length;
  }
  return out;
}

/// What stands first has nothing before it that shows the task, so the first half is read behind the second as well.
void PromptPasses::read_first_half_again(at::Tensor& surprisals) const {
  const auto n = surprisals.size(0), half = n / 2;
  auto order = all_of(static_cast<std::size_t>(n));
  std::rotate(order.begin(), order.begin() + half, order.end());
  const auto turned = lay_out(order);
  const auto pass = model_.language->go_on(model_.theta, {.tokens = places(turned.tokens).unsqueeze(0),
                                                          .predict_at = places(before_outputs(turned.outputs))});
  surprisals.narrow(0, 0, half).copy_(surprisal(turned, pass.logits).narrow(0, n - half, half));
}

Tails PromptPasses::tails(const Trunk& trunk, const Answers& answers, bool states) const {
  const auto shared = static_cast<std::int64_t>(trunk.tokens.size());
  const auto count = trunk.prompts.size();
  std::vector<QueryRow> rows;
  for (std::size_t j = 0; j < count; ++j) {
    const auto last = static_cast<std::int64_t>(trunk.prompts[j].size()) - 1;
    const auto from = options_.position == ReadingPosition::kMean ? trunk.queries[j] : last;
    rows.push_back(row_of(j, trunk.prompts[j], shared, from, answers[j]));
  }
  // rows of a pass are padded to the longest of them
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.tokens.size() < b.tokens.size(); });
  Tails out;
  out.next.resize(count);
  out.log_probabilities.resize(count);
  TensorList all_states, all_attention;
  for (std::size_t begin = 0, end = 0; begin < count; begin = end) {
    end = block_end(rows, begin, options_.batch_size);
    const auto block = block_of(std::span(rows).subspan(begin, end - begin));
    auto predict = block.last;
    predict.insert(predict.end(), block.predict.begin(), block.predict.end());
    Continuation continuation{.tokens = places(block.tokens).view({-1, block.width}),
                              .beginning = shared > 0 ? &trunk.cache : nullptr,
                              .predict_at = places(predict)};
    if (!block.plain) {
      continuation.branches = places(block.branches).view({-1, block.width});
    }
    if (states) {
      continuation.layers = options_.layers;
      continuation.states_at = places(places_in(block.read));
      if (options_.attention) {
        continuation.attention_at = places(block.last);
      }
    }
    const auto pass = model_.language->go_on(model_.theta, continuation);
    if (states) {
      all_states.push_back(span_means(pass.states, block.read));
      if (options_.attention) {
        all_attention.push_back(pass.attention.narrow(2, 0, shared).cpu());
      }
    }
    const auto height = static_cast<std::int64_t>(end - begin);
    const auto best = pass.logits.narrow(0, 0, height).argmax(1).cpu();
    Tokens asked;
    for (auto row = begin; row < end; ++row) {
      const auto j = static_cast<std::size_t>(rows[row].query);
      out.next[j] = best[static_cast<std::int64_t>(row - begin)].item<std::int64_t>();
      for (const auto& answer : answers[j]) {
        asked.insert(asked.end(), answer.begin(), answer.end());
      }
    }
    const auto logs = picked_log_probabilities(pass.logits.slice(0, height), places(asked));
    std::int64_t at = 0;
    for (auto row = begin; row < end; ++row) {
      const auto j = static_cast<std::size_t>(rows[row].query);
      for (const auto& answer : answers[j]) {
        const auto length = static_cast<std::int64_t>(answer.size());
        out.log_probabilities[j].push_back(logs.narrow(0, at, length).sum().item<double>());
        at += length;
      }
    }
  }
  if (states) {
    Tokens order;
    for (const auto& row : rows) {
      order.push_back(row.query);
    }
    const auto in_order = [&](const TensorList& parts) {
      const auto found = at::cat(parts, 1);
      return at::empty_like(found).index_copy_(1, at::tensor(order, at::kLong).to(found.device()), found);
    };
    out.states = in_order(all_states);
    if (options_.attention) {
      out.attention = in_order(all_attention);
    }
  }
  return out;
}

/// What the model writes to each query, token by token, until every answer has ended.
std::vector<std::string> PromptPasses::written(const Trunk& trunk) const {
  auto grown = trunk;
  const auto count = trunk.prompts.size();
  std::size_t longest = 0;
  for (const auto& demonstration : task_.demonstrations) {
    longest = std::max(longest, writer_.answer(demonstration, *demonstration.output).size());
  }
  const auto steps = std::min(2 * longest + 2, kMostWritten);
  std::vector<std::vector<std::int32_t>> ids(count);
  std::vector<std::string> out(count);
  std::vector<bool> ended(count, false);
  for (std::size_t step = 0; step < steps && std::find(ended.begin(), ended.end(), false) != ended.end(); ++step) {
    const auto next = tails(grown, Answers(count), false).next;
    for (std::size_t j = 0; j < count; ++j) {
      if (ended[j]) {
        continue;
      }
      ids[j].push_back(static_cast<std::int32_t>(next[j]));
      grown.prompts[j].push_back(next[j]);
      const auto text = model_.tokenizer.decode(ids[j], /*skip_special_tokens=*/true);
      out[j] = writer_.output_of(text);
      ended[j] = writer_.output_of(text + "x") == out[j] || next[j] == model_.tokenizer.special("eos").value_or(-1) ||
                 static_cast<std::int64_t>(grown.prompts[j].size()) >= model_.language->context();
    }
  }
  return out;
}

}  // namespace whence::detail
