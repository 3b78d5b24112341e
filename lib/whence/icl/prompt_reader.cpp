#include "whence/icl/prompt_reader.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include "whence/core/chunks.h"
#include "whence/core/error.h"
#include "whence/icl/detail/words.h"
#include "whence/models/ops.h"

namespace whence {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
constexpr std::array<std::pair<ReadingPosition, std::string_view>, 3> kPositions{
    {{ReadingPosition::kColumn, "column"}, {ReadingPosition::kLabel, "label"}, {ReadingPosition::kMean, "mean"}}};
constexpr std::size_t kMostWritten = 48;  // tokens of an answer that a model writes itself

using Tokens = std::vector<std::int64_t>;

std::int64_t common_beginning(const Tokens& a, const Tokens& b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

Tokens all_of(std::size_t count) {
  Tokens order(count);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  return order;
}

std::int64_t index_of(const std::vector<std::string>& list, const std::string& text) {
  const auto found = std::find(list.begin(), list.end(), text);
  return found == list.end() ? -1 : found - list.begin();
}

/// What is asked of a task's queries.
PromptReading asked(const PromptTask& task) {
  PromptReading out;
  for (const auto& demonstration : task.demonstrations) {
    if (index_of(out.outputs, *demonstration.output) < 0) {
      out.outputs.push_back(*demonstration.output);
    }
  }
  std::size_t given = 0, among = 0;  // of the queries' outputs
  for (const auto& query : task.queries) {
    out.explained.push_back(query.output.value_or(""));
    given += query.output ? 1 : 0;
    among += query.output && index_of(out.outputs, *query.output) >= 0 ? 1 : 0;
  }
  out.closed = 2 * out.outputs.size() <= task.demonstrations.size() || (given > 0 && among == given);
  return out;
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

/// The mean over a text's tokens of the residual stream after `layer`: [width] float64 on the CPU.
at::Tensor mean_state(const LanguageModel& model, const ParameterSet& theta, const Tokens& tokens, std::int64_t layer) {
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

Tokens places_in(std::span<const TokenSpan> spans) {
  Tokens out;
  for (const auto& span : spans) {
    for (auto t = span.begin; t < span.end; ++t) {
      out.push_back(t);
    }
  }
  return out;
}

/// The mean of the states at each span's places, one span after the other: [L, M, d] to [L, spans, d].
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

/// One query's row: the rest of its prompt, then all but the last token of each answer, as branches.
struct Row {
  std::int64_t query = 0;
  Tokens tokens, branches;
  TokenSpan read;  // its places whose states are wanted, to the rest's last
  Tokens predict;  // where the tokens of the answers are predicted, one after the other

  std::int64_t last() const { return read.end - 1; }
};

Row row_of(std::size_t query, const Tokens& prompt, std::int64_t shared, std::int64_t read_from,
           const std::vector<Tokens>& answers) {
  Row row{.query = static_cast<std::int64_t>(query),
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

/// Rows one below the other, padded to the longest; places number the whole.
struct Block {
  Tokens tokens, branches, last, predict;
  std::vector<TokenSpan> read;
  std::int64_t width = 0;
  bool plain = true;  // all trunk, nothing padded
};

Block block_of(std::span<const Row> rows) {
  Block block;
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

/// The rows from `begin` that one pass takes; the longer ones come later.
std::size_t block_end(std::span<const Row> rows, std::size_t begin, std::int64_t batch_size) {
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

ReadingPosition parse_reading_position(std::string_view word) {
  return detail::parse_word("position", word, kPositions);
}

std::string_view word_of(ReadingPosition position) {
  return std::find_if(kPositions.begin(), kPositions.end(), [&](const auto& known) { return known.first == position; })
      ->second;
}

TargetView parse_target_view(std::string_view word) {
  static constexpr std::array<std::pair<TargetView, std::string_view>, 3> kWords{
      {{TargetView::kAuto, "auto"}, {TargetView::kOneHot, "one-hot"}, {TargetView::kEmbedding, "embedding"}}};
  return detail::parse_word("targets", word, kWords);
}

at::Tensor embed_texts(const LanguageModel& model, const ParameterSet& theta, const Tokenizer& tokenizer,
                       const std::vector<std::string>& texts, std::int64_t layer) {
  const at::NoGradGuard no_gradient;
  TensorList rows;
  for (const auto& text : texts) {
    const auto ids = tokenizer.encode(text).ids;
    if (ids.empty()) {
      throw DataError(fmt::format("the text \"{}\" has no token", text));
    }
    const auto length = std::min(ids.size(), static_cast<std::size_t>(model.context()));
    rows.push_back(
        mean_state(model, theta, Tokens(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(length)), layer));
  }
  return at::stack(rows);
}

bool is_closed(const PromptTask& task) { return asked(task).closed; }

PromptReader::PromptReader(const LanguageModel& model, const ParameterSet& theta, const Tokenizer& tokenizer,
                           const PromptTask& task, ReadingOptions options)
    : model_(model),
      theta_(theta),
      tokenizer_(tokenizer),
      task_(task),
      options_(std::move(options)),
      writer_(task, tokenizer) {
  if (!model.causal()) {
    throw InvalidArgument(
        fmt::format("{}: the model looks both ways, expected a causal one, which writes answers to prompts",
                    model.directory().string()));
  }
}

at::Tensor PromptReader::places(const Tokens& values) const {
  return at::tensor(values, at::kLong).to(theta_.values().front().device());
}

TokenSpan PromptReader::read_in(const TokenizedPrompt& prompt, std::size_t demonstration) const {
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

PromptReader::Trunk PromptReader::lay_out(const Tokens& order) const {
  Trunk out;
  std::int64_t shared = 0;
  for (std::size_t j = 0; j < task_.queries.size(); ++j) {
    auto prompt = writer_.tokenize(order, task_.queries[j]);
    const auto most = *std::max_element(prompt.tokens.begin(), prompt.tokens.end());
    if (most >= model_.vocabulary()) {
      throw DataError(fmt::format(
          "task {}: the tokenizer has a token {}, but the model knows 0 to {}: it is another model's tokenizer",
          task_.name, most, model_.vocabulary() - 1));
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

void PromptReader::run(Trunk& trunk) const {
  Continuation continuation{.tokens = places(trunk.tokens).unsqueeze(0),
                            .layers = options_.layers,
                            .states_at = places(places_in(trunk.read)),
                            .keep = true};
  if (options_.surprisal) {
    continuation.predict_at = places(before_outputs(trunk.outputs));
  }
  auto pass = model_.go_on(theta_, continuation);
  trunk.cache = std::move(pass.cache);
  trunk.states = span_means(pass.states, trunk.read);
  if (options_.surprisal) {
    trunk.surprisal = surprisal(trunk, pass.logits);
  }
}

void PromptReader::run_from(Trunk& trunk, const Trunk& known) const {
  const auto taken = common_beginning(trunk.tokens, known.tokens);
  if (taken > 0) {
    trunk.cache = known.cache.first(taken);
  }
  const Tokens rest(trunk.tokens.begin() + taken, trunk.tokens.end());
  if (!rest.empty()) {
    trunk.cache =
        model_
            .go_on(theta_,
                   {.tokens = places(rest).unsqueeze(0), .beginning = taken > 0 ? &trunk.cache : nullptr, .keep = true})
            .cache;
  }
}

at::Tensor PromptReader::surprisal(const Trunk& trunk, const at::Tensor& logits) {
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
void PromptReader::read_first_half_again(at::Tensor& surprisals) const {
  const auto n = surprisals.size(0), half = n / 2;
  auto order = all_of(static_cast<std::size_t>(n));
  std::rotate(order.begin(), order.begin() + half, order.end());
  const auto turned = lay_out(order);
  const auto pass = model_.go_on(
      theta_, {.tokens = places(turned.tokens).unsqueeze(0), .predict_at = places(before_outputs(turned.outputs))});
  surprisals.narrow(0, 0, half).copy_(surprisal(turned, pass.logits).narrow(0, n - half, half));
}

PromptReader::Tails PromptReader::tails(const Trunk& trunk, const Answers& answers, bool states) const {
  const auto shared = static_cast<std::int64_t>(trunk.tokens.size());
  const auto count = trunk.prompts.size();
  std::vector<Row> rows;
  for (std::size_t j = 0; j < count; ++j) {
    const auto last = static_cast<std::int64_t>(trunk.prompts[j].size()) - 1;
    const auto from = options_.position == ReadingPosition::kMean ? trunk.queries[j] : last;
    rows.push_back(row_of(j, trunk.prompts[j], shared, from, answers[j]));
  }
  // rows of a pass are padded to the longest of them
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.tokens.size() < b.tokens.size(); });
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
    const auto pass = model_.go_on(theta_, continuation);
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
std::vector<std::string> PromptReader::written(const Trunk& trunk) const {
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
      const auto text = tokenizer_.decode(ids[j], /*skip_special_tokens=*/true);
      out[j] = writer_.output_of(text);
      ended[j] = writer_.output_of(text + "x") == out[j] || next[j] == tokenizer_.special("eos").value_or(-1) ||
                 static_cast<std::int64_t>(grown.prompts[j].size()) >= model_.context();
    }
  }
  return out;
}

PromptReader::Answers PromptReader::answers_of(const PromptReading& reading) const {
  Answers answers(task_.queries.size());
  for (std::size_t j = 0; j < answers.size(); ++j) {
    if (reading.closed) {
      for (const auto& output : reading.outputs) {
        answers[j].push_back(writer_.answer(task_.queries[j], output));
      }
    }
    answers[j].push_back(reading.explained[j].empty() ? Tokens{}
                                                      : writer_.answer(task_.queries[j], reading.explained[j]));
  }
  return answers;
}

PromptReading PromptReader::read() {
  const at::NoGradGuard no_gradient;
  if (task_.demonstrations.empty()) {
    throw DataError(fmt::format("task {}: no demonstrations, expected at least one", task_.name));
  }
  auto out = asked(task_);
  const auto answers = answers_of(out);
  whole_ = lay_out(all_of(task_.demonstrations.size()));
  check_length(whole_, answers);
  run(whole_);
  if (options_.surprisal && task_.demonstrations.size() > 1) {
    read_first_half_again(whole_.surprisal);
  }
  const auto found = tails(whole_, answers, true);
  predict(out, found);
  out.prompt_tokens = static_cast<std::int64_t>(whole_.tokens.size());
  for (const auto& prompt : whole_.prompts) {
    out.longest_query = std::max(out.longest_query, static_cast<std::int64_t>(prompt.size()) - out.prompt_tokens);
  }
  out.task = icl_task(out, found);
  return out;
}

void PromptReader::predict(PromptReading& out, const Tails& found) {
  const auto q = task_.queries.size(), classes = out.outputs.size();
  out.predictions = out.closed ? std::vector<std::string>(q) : written(whole_);
  if (out.closed) {
    out.log_probabilities = at::empty({static_cast<std::int64_t>(q), static_cast<std::int64_t>(classes)}, at::kDouble);
  }
  out.explained_log_probability = at::full({static_cast<std::int64_t>(q)}, kUnknown, at::kDouble);
  out.predicted_log_probability = out.explained_log_probability.clone();
  bool again = false;  // whether a prediction's log-probability is not yet known
  for (std::size_t j = 0; j < q; ++j) {
    const auto& answers = found.log_probabilities[j];
    if (out.closed) {
      const auto best = std::max_element(answers.begin(), answers.begin() + static_cast<std::ptrdiff_t>(classes));
      out.predictions[j] = out.outputs[static_cast<std::size_t>(best - answers.begin())];
      for (std::size_t c = 0; c < classes; ++c) {
        out.log_probabilities[static_cast<std::int64_t>(j)][static_cast<std::int64_t>(c)] = answers[c];
      }
    }
    const auto row = static_cast<std::int64_t>(j);
    const bool given = task_.queries[j].output.has_value();
    if (!given) {
      out.explained[j] = out.predictions[j];
    }
    if (out.closed) {
      out.predicted_log_probability[row] = *std::max_element(answers.begin(), answers.end() - 1);
    } else if (given && out.explained[j] == out.predictions[j]) {
      out.predicted_log_probability[row] = answers.back();
    } else {
      again = again || !out.predictions[j].empty();
    }
    out.explained_log_probability[row] =
        given ? at::scalar_tensor(answers.back(), at::kDouble) : out.predicted_log_probability[row];
  }
  if (again) {
    Answers written(q);
    for (std::size_t j = 0; j < q; ++j) {
      written[j].push_back(out.predictions[j].empty() ? Tokens{}
                                                      : writer_.answer(task_.queries[j], out.predictions[j]));
    }
    const auto second = tails(whole_, written, false);
    for (std::size_t j = 0; j < q; ++j) {
      const auto row = static_cast<std::int64_t>(j);
      out.predicted_log_probability[row] = out.predictions[j].empty() ? kUnknown : second.log_probabilities[j].back();
      if (!task_.queries[j].output) {
        out.explained_log_probability[row] = out.predicted_log_probability[row];
      }
    }
  }
}

IclTask PromptReader::icl_task(const PromptReading& reading, const Tails& found) {
  Tokens labels, query_labels;
  for (const auto& demonstration : task_.demonstrations) {
    labels.push_back(index_of(reading.outputs, *demonstration.output));
  }
  for (const auto& explained : reading.explained) {
    query_labels.push_back(index_of(reading.outputs, explained));
  }
  IclTask task;
  task.labels = at::tensor(labels, at::kLong);
  task.classes = static_cast<std::int64_t>(reading.outputs.size());
  task.query_labels = at::tensor(query_labels, at::kLong);
  task.states = whole_.states;
  task.surprisal = whole_.surprisal;
  task.query_states = found.states;
  if (options_.attention) {
    TensorList columns;
    for (const auto& span : whole_.demonstrations) {
      columns.push_back(found.attention.slice(2, span.begin, std::max(span.begin + 1, span.end)).sum(2));
    }
    task.attention = at::stack(columns, 2);
  }
  const bool one_hot = options_.targets == TargetView::kAuto ? reading.closed : options_.targets == TargetView::kOneHot;
  if (!one_hot) {
    std::tie(task.targets, task.query_targets) = embedded_targets(reading.explained);
  }
  return task;
}

void PromptReader::check_length(const Trunk& trunk, const Answers& answers) const {
  for (std::size_t j = 0; j < answers.size(); ++j) {
    std::size_t longest = 0;
    for (const auto& answer : answers[j]) {
      longest = std::max(longest, answer.size());
    }
    const auto tokens = trunk.prompts[j].size() + longest;
    if (static_cast<std::int64_t>(tokens) > model_.context()) {
      const auto room = model_.context() - (static_cast<std::int64_t>(tokens) - trunk.queries[j]);
      const auto fit = std::count_if(trunk.demonstrations.begin(), trunk.demonstrations.end(),
                                     [&](const TokenSpan& span) { return span.end < room; });
      throw DataError(
          fmt::format("task {}: the prompt of query {} has {} tokens with its answer, expected at most the model's "
                      "context of {}: give shorter demonstrations, or fewer (the first {} of {} fit)",
                      task_.name, j, tokens, model_.context(), fit, trunk.demonstrations.size()));
    }
  }
}

std::pair<at::Tensor, at::Tensor> PromptReader::embedded_targets(const std::vector<std::string>& explained) {
  const at::NoGradGuard no_gradient;
  const auto embedding = [&](const Exchange& exchange, const std::string& output) {
    return mean_state(model_, theta_, writer_.answer(exchange, output), 0);
  };
  TensorList own;
  for (const auto& demonstration : task_.demonstrations) {
    own.push_back(embedding(demonstration, *demonstration.output));
  }
  const auto targets = at::stack(own), mean = targets.mean(0);
  const auto unit = [&](const at::Tensor& rows) {
    const auto centred = rows - mean;
    return centred / at::linalg_vector_norm(centred, 2, {1}, /*keepdim=*/true).clamp_min(1e-30);
  };
  TensorList rows;
  for (std::size_t j = 0; j < explained.size(); ++j) {
    rows.push_back(explained[j].empty() ? at::full_like(mean, kUnknown) : embedding(task_.queries[j], explained[j]));
  }
  return {unit(targets), unit(at::stack(rows))};
}

at::Tensor PromptReader::states_in_order(const Tokens& order) {
  const at::NoGradGuard no_gradient;
  auto moved = lay_out(order);
  run(moved);
  return at::empty_like(moved.states).index_copy_(1, places(order), moved.states);
}

Removals PromptReader::remove_each(const PromptReading& reading, const Progress& progress) {
  const at::NoGradGuard no_gradient;
  const auto n = static_cast<std::int64_t>(task_.demonstrations.size());
  const auto q = static_cast<std::int64_t>(task_.queries.size());
  const auto answers = answers_of(reading);
  const auto among = [&](const at::Tensor& log_probabilities) {  // of each query's label, [q]
    return at::log_softmax(log_probabilities, 1)
        .gather(1, reading.task.query_labels.clamp_min(0).unsqueeze(1))
        .squeeze(1)
        .masked_fill(reading.task.query_labels.lt(0), kUnknown);
  };
  Removals out;
  out.log_probability = at::empty({q, n}, at::kDouble);
  if (reading.closed) {
    out.among_outputs = at::empty({q, n}, at::kDouble);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    report(progress, {.phase = "remove " + task_.name, .done = i, .total = n, .detail = {}});
    auto order = all_of(static_cast<std::size_t>(n));
    order.erase(order.begin() + i);
    auto rest = lay_out(order);
    run_from(rest, whole_);
    const auto found = tails(rest, answers, false).log_probabilities;
    auto without = at::empty({q}, at::kDouble);
    auto outputs = reading.closed ? at::empty_like(reading.log_probabilities) : at::Tensor();
    for (std::int64_t j = 0; j < q; ++j) {
      const auto& row = found[static_cast<std::size_t>(j)];
      without[j] = reading.explained[static_cast<std::size_t>(j)].empty() ? kUnknown : row.back();
      for (std::int64_t c = 0; reading.closed && c < outputs.size(1); ++c) {
        outputs[j][c] = row[static_cast<std::size_t>(c)];
      }
    }
    out.log_probability.select(1, i).copy_(reading.explained_log_probability - without);
    if (reading.closed) {
      out.among_outputs.select(1, i).copy_(among(reading.log_probabilities) - among(outputs));
    }
  }
  report(progress, {.phase = "remove " + task_.name, .done = n, .total = n, .detail = {}});
  return out;
}

}  // namespace whence
