// Many ridge views of many prompts from one forward pass each: what tests/bench/icl/study.py asks.
//   whence_bench_icl_study MODEL TASKS QUERIES POSITION DTYPE THREADS VERIFIED >RESULT.jsonl
// TASKS as of whence icl. The first QUERIES queries of a task make the scores; the first VERIFIED tasks are also run
// without each demonstration. One line a task: answers of all queries and, for each configuration and every second
// layer, the scores' means over those queries and their rank correlation with removal (the mean of the queries').
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "whence/core/parallel.h"
#include "whence/evaluate/statistics.h"
#include "whence/icl/prompt_reader.h"
#include "whence/icl/ridge_view.h"
#include "whence/models/model.h"

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

Json rounded(const at::Tensor& x) {
  Json out = Json::array();
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    out.push_back(std::stod(fmt::format("{:.5g}", x[i].item<double>())));
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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) {
    fmt::print(stderr, "usage: {} MODEL TASKS QUERIES POSITION DTYPE THREADS VERIFIED\n", argv[0]);
    return 2;
  }
  const at::NoGradGuard no_gradient;
  set_threads(std::stoll(argv[6]));
  const std::shared_ptr<Model> model = create<Model>(fmt::format("transformer:directory={}", argv[1]));
  const auto& language = dynamic_cast<const LanguageModel&>(*model);
  Random random(0);
  const auto theta =
      model->initial({}, 0, random).to(std::string(argv[5]) == "bfloat16" ? at::kBFloat16 : at::kFloat, at::kCPU);
  const Tokenizer tokenizer(argv[1]);
  ReadingOptions options;
  for (std::int64_t l = 2; l <= language.blocks(); l += 2) {
    options.layers.push_back(l);
  }
  options.surprisal = true;
  options.position = parse_reading_position(argv[4]);
  const auto used = std::stoll(argv[3]);
  std::int64_t number = 0;
  for (const auto& task : read_tasks(argv[2])) {
    PromptReader reader(language, theta, tokenizer, task, options);
    const auto reading = reader.read();
    Json out{{"task", task.name}, {"predictions", reading.predictions}, {"prompt-tokens", reading.prompt_tokens}};
    if (reading.closed) {
      out["outputs"] = reading.outputs;
      for (std::int64_t j = 0; j < reading.log_probabilities.size(0); ++j) {
        out["log-probabilities"].push_back(rounded(reading.log_probabilities[j]));
      }
    }
    out["surprisal"] = rounded(create<IclMethod>("surprisal:center=false")->score(reading.task).self);
    out["surprisal, centred"] = rounded(create<IclMethod>("surprisal")->score(reading.task).self);
    at::Tensor truth;
    if (number++ < std::stoll(argv[7])) {
      auto few = task;
      few.queries.resize(static_cast<std::size_t>(used));
      PromptReader again(language, theta, tokenizer, few, options);
      const auto removals = again.remove_each(again.read(), {});
      truth = reading.closed ? removals.among_outputs : removals.log_probability;
      out["removal"] = rounded(truth.mean(0));
    }
    auto shown = reading.task;
    shown.query_labels = shown.query_labels.narrow(0, 0, used);
    shown.query_states = shown.query_states.narrow(1, 0, used);
    if (shown.targets.defined()) {
      shown.query_targets = shown.query_targets.narrow(0, 0, used);
    }
    for (const auto& c : kConfigurations) {
      const RidgeOptions ridge{
          .lambda = c.lambda, .self_lambda = c.self_lambda, .regulariser = c.regulariser, .kernel = c.kernel};
      std::vector<IclScores> layers;
      try {
        layers = ridge_scores_by_layer(shown, ridge);
      } catch (const NumericalError&) {  // a lambda that rounding swallows
        continue;
      }
      for (std::size_t l = 0; l < layers.size(); ++l) {
        auto& entry = out["scores"][c.name][std::to_string(options.layers[l])];
        entry["test"] = rounded(layers[l].test.nanmean(0));
        entry["leave-one-out"] = rounded(layers[l].leave_one_out.nanmean(0));
        entry["self"] = rounded(layers[l].self);
        entry["loss"] = ridge_loss(shown, layers[l]);
        if (truth.defined()) {
          entry["test-removal"] = mean_spearman(layers[l].test, truth);
          entry["leave-one-out-removal"] = mean_spearman(layers[l].leave_one_out, truth);
        }
      }
    }
    fmt::print("{}\n", out.dump());
    std::fflush(stdout);
  }
  return 0;
}
