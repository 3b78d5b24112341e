// What the dual form saves over the arithmetic of DETAIL's authors, which solves a d x d system for each demonstration,
// and with a model what attribution costs beside the forward pass, and removals beside running every prompt again:
//   whence_bench icl [MODEL TASK [THREADS]]
// One layer, one query, float64, random hidden states; medians of five. The d x d system is factored by LAPACK through
// torch, as theirs is. At d = 4096 one factorization is timed and multiplied. Keep the machine idle.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "bench/bench.h"
#include "whence/core/parallel.h"
#include "whence/core/random.h"
#include "whence/icl/prompt_reader.h"
#include "whence/icl/ridge_view.h"
#include "whence/models/text_model.h"

using namespace whence;

namespace {

IclTask made_task(std::int64_t n, std::int64_t d, std::int64_t queries) {
  Random random(1);
  IclTask task{.labels = random.uniform({n}, 0, 4).to(at::kLong),
               .classes = 4,
               .query_labels = at::zeros({queries}, at::kLong),
               .states = random.normal({1, n, d}).to(at::kFloat),
               .query_states = random.normal({1, queries, d}).to(at::kFloat)};
  return task;
}

/// The test scores of the first `count` demonstrations for the first query, from H factored anew for each: [count].
at::Tensor refactored(const IclTask& task, std::int64_t count) {
  const auto m = task.states[0].to(at::kDouble), query = task.query_states[0].narrow(0, 0, 1).to(at::kDouble);
  const auto y = at::eye(task.classes, at::kDouble).index_select(0, task.labels);
  const auto h = m.t().mm(m) + at::eye(m.size(1), at::kDouble);
  const auto beta = at::linalg_solve(h, m.t().mm(y));
  const auto target = at::eye(task.classes, at::kDouble)[task.query_labels[0].item<std::int64_t>()];
  const auto g_query = query.t().mm(query.mm(beta) - target) + beta;
  auto scores = at::empty({count}, at::kDouble);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = m.narrow(0, i, 1);
    scores[i] = (g_query * at::linalg_solve(h, row.t().mm(row.mm(beta) - y[i]) + beta)).sum();
  }
  return scores;
}

/// Of one query: the prompt's forward pass with the next token's logits at its end, or at every token as transformers
/// makes them, against everything that whence icl does; then removals against running each prompt whole.
void with_model(const std::string& folder, const std::string& path) {
  const at::NoGradGuard no_gradient;
  const auto model = read_text_model(folder);
  const auto& language = *model.language;
  auto task = read_tasks(path).front();
  task.queries.resize(1);
  const auto third = std::max<std::int64_t>(1, language.blocks() / 3);
  PromptReader reader(model, task, {.layers = {third, 2 * third}});
  std::vector<std::int64_t> order(task.demonstrations.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto forward = [&](const std::vector<std::int64_t>& which, bool every) {
    const auto tokens = reader.writer().tokenize(which, task.queries[0]).tokens;
    const auto count = static_cast<std::int64_t>(tokens.size());
    return language.go_on(model.theta,
                          {.tokens = at::tensor(tokens, at::kLong).unsqueeze(0),
                           .predict_at = every ? at::arange(count, at::kLong) : at::full({1}, count - 1, at::kLong)});
  };
  PromptReading reading;
  std::vector<double> plain, full, ours, removals, again;
  for (int round = 0; round < 5; ++round) {  // in turns
    plain.push_back(median_seconds([&] { forward(order, false); }, 1));
    full.push_back(median_seconds([&] { forward(order, true); }, 1));
    ours.push_back(median_seconds(
        [&] {
          reading = reader.read();
          ridge_scores(reading.task, {});
        },
        1));
  }
  for (int round = 0; round < 2; ++round) {
    removals.push_back(median_seconds([&] { reader.remove_each(reading, {}); }, 1));
    again.push_back(median_seconds(
        [&] {
          for (std::size_t i = 0; i < order.size(); ++i) {
            auto rest = order;
            rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
            forward(rest, false);
          }
        },
        1));
  }
  const auto median = [](std::vector<double> x) {
    std::sort(x.begin(), x.end());
    return x[x.size() / 2];
  };
  fmt::print("{}: {} demonstrations in {} tokens, a query of {}, {} threads\n", task.name, order.size(),
             reading.prompt_tokens, reading.longest_query, threads());
  fmt::print("forward pass {:.3f} s, with logits at every token {:.3f} s; icl {:.3f} s: {:.3f} and {:.3f} times\n",
             median(plain), median(full), median(ours), median(ours) / median(plain), median(ours) / median(full));
  fmt::print("every removal {:.2f} s, each prompt whole {:.2f} s: {:.2f} of it\n", median(removals), median(again),
             median(removals) / median(again));
}

}  // namespace

int bench_icl(int argc, char** argv) {
  set_threads(argc > 3 ? std::stoll(argv[3]) : 0);
  if (argc > 2) {
    with_model(argv[1], argv[2]);
    return 0;
  }
  fmt::print("{} threads\n", threads());
  const auto paper = detail_ridge_options();
  for (const std::int64_t d : {1000, 4096}) {
    const auto task = made_task(20, d, 1);
    IclScores scores;
    const double ours = median_seconds([&] { scores = ridge_scores(task, paper); }, 21);
    at::Tensor theirs;
    double time = 0;
    if (d == 1000) {
      time = median_seconds([&] { theirs = refactored(task, 20); });
    } else {
      const double none = median_seconds([&] { refactored(task, 0); }, 1);
      time = none + 20 * (median_seconds([&] { theirs = refactored(task, 1); }, 1) - none);
    }
    const double off = ((scores.test[0].narrow(0, 0, theirs.size(0)) - theirs).norm() / theirs.norm()).item<double>();
    fmt::print(
        "n = 20, d = {}: closed form {:.2f} ms, d x d systems {:.0f} ms{}: {:.0f} times; scores differ by {:.0e}\n", d,
        1e3 * ours, 1e3 * time, d == 1000 ? "" : " (from one of 20)", time / ours, off);
  }
  for (const double self_lambda : {0., 1e-9}) {
    const auto task = made_task(1000, 4096, 100);
    auto options = paper;
    options.self_lambda = self_lambda;
    fmt::print("n = 1000, d = 4096, 100 queries, self-lambda {}: {:.2f} s\n", self_lambda > 0 ? "1e-9" : "= lambda",
               median_seconds([&] { ridge_scores(task, options); }));
  }
  for (const std::int64_t n : {2000}) {
    const auto task = made_task(n, 512, 100);
    fmt::print("n = {}, d = 512, 100 queries: {:.2f} s\n", n, median_seconds([&] { ridge_scores(task, paper); }));
  }
  return 0;
}
