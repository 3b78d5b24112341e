// Many ridge views of many prompts from one forward pass each: what tests/bench/icl/study.py asks.
//   whence_bench icl-study MODEL TASKS QUERIES POSITIONS DTYPE THREADS VERIFIED >RESULT.jsonl
// TASKS as of whence icl; POSITIONS as column,label,mean. The first QUERIES queries of a task make the scores, the
// first VERIFIED are also asked without each demonstration. One line a task: what all queries are answered and, for
// each position with each configuration and every second layer, the scores' means over those queries, their rank
// correlation with removal (the mean of the queries') and, for one of them, the half of the demonstrations that
// --select would keep.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "bench/bench.h"
#include "whence/core/parallel.h"
#include "whence/evaluate/statistics.h"
#include "whence/icl/prompt_reader.h"
#include "whence/icl/ridge_view.h"
#include "whence/icl/uses.h"
#include "whence/models/text_model.h"

using namespace whence;
using Json = nlohmann::json;

namespace {

struct Configuration {
  std::string name, kernel;
  double lambda, self_lambda;
  bool regulariser;
};

const std::vector<Configuration> kConfigurations{
    {"detail", "dot", 1, 0, true},
    {"detail, self-lambda 1e-9", "dot", 1, 1e-9, true},
    {"dot 1e3", "dot", 1e3, 0, false},
    {"dot 1e5", "dot", 1e5, 0, false},
    {"dot:center 1", "dot:center", 1, 0, false},
    {"dot:center 1e3", "dot:center", 1e3, 0, false},
    {"dot:center 1e5", "dot:center", 1e5, 0, false},
    {"cosine 0.1", "cosine", 0.1, 0, false},
    {"cosine:center 0.01", "cosine:center", 0.01, 0, false},
    {"cosine:center 0.1", "cosine:center", 0.1, 0, false},
    {"cosine:center 1", "cosine:center", 1, 0, false},
    {"cosine:center 1, regulariser", "cosine:center", 1, 0, true},
    {"cosine:center 10", "cosine:center", 10, 0, false},
    {"rbf 0.1", "rbf", 0.1, 0, false},
    {"rbf 1", "rbf", 1, 0, false},
};

constexpr auto kSelecting = "cosine 0.1";

Json rounded(const at::Tensor& x) {
  Json out = Json::array();
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    out.push_back(std::strtod(fmt::format("{:.5g}", x[i].item<double>()).c_str(), nullptr));
  }
  return out;
}

/// Over the queries' rows of scores and truth: the mean rank correlation.
double mean_spearman(const at::Tensor& scores, const at::Tensor& truth) {
  double sum = 0;
  int counted = 0;
  for (std::int64_t j = 0; j < truth.size(0); ++j) {
    const auto a = scores[j].contiguous(), b = truth[j].contiguous();
    const auto n = static_cast<std::size_t>(a.numel());
    const double found = spearman({a.const_data_ptr<double>(), n}, {b.const_data_ptr<double>(), n});
    if (std::isfinite(found)) {
      sum += found;
      ++counted;
    }
  }
  return counted > 0 ? sum / counted : NAN;
}

/// One layer's scores; null where rounding swallows lambda.
Json scored(const IclTask& task, std::int64_t layer, const Configuration& c, const at::Tensor& truth) {
  const RidgeOptions ridge{
      .lambda = c.lambda, .self_lambda = c.self_lambda, .regulariser = c.regulariser, .kernel = c.kernel};
  auto one = task;
  one.states = one.states.narrow(0, layer, 1);
  one.query_states = one.query_states.narrow(0, layer, 1);
  Json out;
  try {
    const auto scores = ridge_scores(one, ridge);
    out["test"] = rounded(scores.test.nanmean(0));
    out["leave-one-out"] = rounded(scores.leave_one_out.nanmean(0));
    out["self"] = rounded(scores.self);
    out["loss"] = ridge_loss(one, scores);
    if (c.name == kSelecting) {
      out["selected"] = select_demonstrations(one, one.demonstrations() / 2, ridge).chosen;
    }
    if (truth.defined()) {
      out["test-removal"] = mean_spearman(scores.test, truth);
      out["leave-one-out-removal"] = mean_spearman(scores.leave_one_out, truth);
    }
  } catch (const NumericalError&) {
    return {};
  }
  return out;
}

}  // namespace

int bench_icl_study(int argc, char** argv) {
  if (argc != 8) {
    fmt::print(stderr, "usage: whence_bench icl-study MODEL TASKS QUERIES POSITIONS DTYPE THREADS VERIFIED\n");
    return 2;
  }
  const at::NoGradGuard no_gradient;
  set_threads(std::stoll(argv[6]));
  const auto model = read_text_model(argv[1], std::string(argv[5]) == "bfloat16" ? at::kBFloat16 : at::kFloat);
  ReadingOptions options;
  for (std::int64_t l = 2; l <= model.language->blocks(); l += 2) {
    options.layers.push_back(l);
  }
  options.surprisal = true;
  const auto used = std::stoll(argv[3]), verified = std::stoll(argv[7]);
  std::vector<std::string> positions;
  std::istringstream words(argv[4]);
  for (std::string word; std::getline(words, word, ',');) {
    positions.push_back(word);
  }
  for (const auto& task : read_tasks(argv[2])) {
    Json out{{"task", task.name}};
    at::Tensor truth;  // [verified, n]
    if (verified > 0) {
      auto few = task;
      few.queries.resize(static_cast<std::size_t>(verified));
      PromptReader reader(model, few, options);
      const auto reading = reader.read();
      const auto removals = reader.remove_each(reading, {});
      truth = reading.closed ? removals.among_outputs : removals.log_probability;
      out["removal"] = rounded(truth.mean(0));
    }
    for (const auto& position : positions) {
      options.position = parse_reading_position(position);
      PromptReader reader(model, task, options);
      auto reading = reader.read();
      out["surprisal"] = rounded(create<IclMethod>("surprisal:center=false")->score(reading.task).self);
      out["surprisal, centred"] = rounded(create<IclMethod>("surprisal")->score(reading.task).self);
      out["predictions"] = reading.predictions;
      auto& shown = reading.task;
      shown.query_labels = shown.query_labels.narrow(0, 0, used);
      shown.query_states = shown.query_states.narrow(1, 0, used);
      if (shown.targets.defined()) {
        shown.query_targets = shown.query_targets.narrow(0, 0, used);
      }
      for (const auto& c : kConfigurations) {
        for (std::size_t l = 0; l < options.layers.size(); ++l) {
          auto scores = scored(shown, static_cast<std::int64_t>(l), c, truth);
          if (!scores.is_null()) {
            out["scores"][fmt::format("{} {}", position, c.name)][std::to_string(options.layers[l])] =
                std::move(scores);
          }
        }
      }
    }
    fmt::print("{}\n", out.dump());
    std::fflush(stdout);
  }
  return 0;
}
