#include "whence/icl/prompt_reader.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "whence/core/error.h"
#include "whence/icl/detail/prompt_passes.h"
#include "whence/icl/text_embedding.h"

namespace whence {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

using detail::Answers;
using detail::Tokens;

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

}  // namespace

bool is_closed(const PromptTask& task) { return asked(task).closed; }

PromptReader::PromptReader(TextModel model, PromptTask task, ReadingOptions options)
    : model_(std::move(model)),
      task_(std::move(task)),
      options_(std::move(options)),
      passes_(std::make_unique<detail::PromptPasses>(model_, task_, options_)),
      whole_(std::make_unique<detail::Trunk>()) {}

PromptReader::PromptReader(PromptReader&&) noexcept = default;
PromptReader::~PromptReader() = default;

const PromptWriter& PromptReader::writer() const { return passes_->writer(); }

Answers PromptReader::answers_of(const PromptReading& reading) const {
  Answers answers(task_.queries.size());
  for (std::size_t j = 0; j < answers.size(); ++j) {
    if (reading.closed) {
      for (const auto& output : reading.outputs) {
        answers[j].push_back(writer().answer(task_.queries[j], output));
      }
    }
    answers[j].push_back(reading.explained[j].empty() ? Tokens{}
                                                      : writer().answer(task_.queries[j], reading.explained[j]));
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
  *whole_ = passes_->lay_out(detail::all_of(task_.demonstrations.size()));
  passes_->check_length(*whole_, answers);
  passes_->run(*whole_);
  if (options_.surprisal && task_.demonstrations.size() > 1) {
    passes_->read_first_half_again(whole_->surprisal);
  }
  const auto found = passes_->tails(*whole_, answers, true);
  predict(out, found);
  out.prompt_tokens = static_cast<std::int64_t>(whole_->tokens.size());
  for (const auto& prompt : whole_->prompts) {
    out.longest_query = std::max(out.longest_query, static_cast<std::int64_t>(prompt.size()) - out.prompt_tokens);
  }
  out.task = icl_task(out, found);
  return out;
}

void PromptReader::predict(PromptReading& out, const detail::Tails& found) {
  const auto q = task_.queries.size(), classes = out.outputs.size();
  out.predictions = out.closed ? std::vector<std::string>(q) : passes_->written(*whole_);
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
                                                      : writer().answer(task_.queries[j], out.predictions[j]));
    }
    const auto second = passes_->tails(*whole_, written, false);
    for (std::size_t j = 0; j < q; ++j) {
      const auto row = static_cast<std::int64_t>(j);
      out.predicted_log_probability[row] = out.predictions[j].empty() ? kUnknown : second.log_probabilities[j].back();
      if (!task_.queries[j].output) {
        out.explained_log_probability[row] = out.predicted_log_probability[row];
      }
    }
  }
}

IclTask PromptReader::icl_task(const PromptReading& reading, const detail::Tails& found) {
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
  task.states = whole_->states;
  task.surprisal = whole_->surprisal;
  task.query_states = found.states;
  if (options_.attention) {
    TensorList columns;
    for (const auto& span : whole_->demonstrations) {
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

std::pair<at::Tensor, at::Tensor> PromptReader::embedded_targets(const std::vector<std::string>& explained) {
  const at::NoGradGuard no_gradient;
  const auto embedding = [&](const Exchange& exchange, const std::string& output) {
    return embed_tokens(*model_.language, model_.theta, writer().answer(exchange, output), 0);
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
  auto moved = passes_->lay_out(order);
  passes_->run(moved);
  return at::empty_like(moved.states).index_copy_(1, passes_->places(order), moved.states);
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
    auto order = detail::all_of(static_cast<std::size_t>(n));
    order.erase(order.begin() + i);
    auto rest = passes_->lay_out(order);
    passes_->run_from(rest, *whole_);
    const auto found = passes_->tails(rest, answers, false).log_probabilities;
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
