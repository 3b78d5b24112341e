#include "icl_result.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "json.h"
#include "whence/evaluate/statistics.h"
#include "whence/icl/ridge_view.h"

namespace whence::cli {
namespace {

std::vector<double> values_of(const at::Tensor& x) {
  const auto flat = x.to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// Null for what is not finite, and for a tensor that is not there.
Json list(const at::Tensor& x) {
  if (!x.defined()) {
    return nullptr;
  }
  auto out = Json::array();
  for (const double value : values_of(x)) {
    out.push_back(std::isfinite(value) ? Json(value) : Json(nullptr));
  }
  return out;
}

/// The pairs where both are known.
struct Pairs {
  std::vector<double> x, y;
  void add(const at::Tensor& a, const at::Tensor& b) {
    const auto left = values_of(a), right = values_of(b);
    for (std::size_t i = 0; i < left.size(); ++i) {
      if (std::isfinite(left[i]) && std::isfinite(right[i])) {
        x.push_back(left[i]);
        y.push_back(right[i]);
      }
    }
  }
};

/// How scores [q, n] agree with what removal did, over all pairs and as the mean over queries.
Json agreement(const at::Tensor& scores, const at::Tensor& truth) {
  Pairs all;
  all.add(scores, truth);
  double sum = 0;
  std::int64_t counted = 0;
  for (std::int64_t j = 0; j < scores.size(0); ++j) {
    Pairs query;
    query.add(scores[j], truth[j]);
    if (const double found = spearman(query.x, query.y); std::isfinite(found)) {
      sum += found;
      ++counted;
    }
  }
  return {{"pearson", pearson(all.x, all.y)},
          {"spearman", spearman(all.x, all.y)},
          {"mean-spearman-of-queries", counted > 0 ? sum / static_cast<double>(counted) : NAN},
          {"pairs", all.x.size()}};
}

Json verified(const IclScores& scores, const Removals& removals) {
  Json out;
  const auto add = [&](const char* name, const at::Tensor& found) {
    for (const auto& [truth, values] :
         {std::pair("log-probability", removals.log_probability), std::pair("among-outputs", removals.among_outputs)}) {
      if (found.defined() && values.defined()) {
        out[name][truth] = agreement(found, values);
      }
    }
  };
  add("test", scores.test);
  add("leave-one-out", scores.leave_one_out);
  return out;
}

/// Of the prediction and of what is explained: among the outputs where the answer is one of them, else among all that a
/// model could write. Null where there is none.
std::pair<Json, Json> probabilities(const PromptReading& reading, std::int64_t row) {
  const auto share = [&](const std::string& answer, const at::Tensor& log_probability) -> Json {
    double value = std::exp(log_probability[row].item<double>());
    if (reading.closed) {
      const auto found = std::find(reading.outputs.begin(), reading.outputs.end(), answer);
      value = found == reading.outputs.end()
                  ? NAN
                  : at::softmax(reading.log_probabilities[row], 0)[found - reading.outputs.begin()].item<double>();
    }
    return std::isfinite(value) ? Json(value) : Json(nullptr);
  };
  const auto j = static_cast<std::size_t>(row);
  return {share(reading.predictions[j], reading.predicted_log_probability),
          share(reading.explained[j], reading.explained_log_probability)};
}

/// The advice as icl.json has it, with the sentence that leads terminal and page.
void add_advice(Json& out, const IclResult& r) {
  out["drop"] = nullptr;
  if (!r.advice) {
    return;
  }
  const auto& advice = *r.advice;
  out["drop"] = Json::array();
  std::vector<std::int64_t> numbers;
  for (const auto& drop : advice.drop) {
    const auto i = static_cast<std::size_t>(drop.demonstration);
    out["drop"].push_back(
        {{"demonstration", drop.demonstration},
         {"self", r.scores.self[drop.demonstration].item<double>()},
         {"output", *r.task.demonstrations[i].output},
         {"instead",
          drop.instead < 0 ? Json(nullptr) : Json(r.reading.outputs[static_cast<std::size_t>(drop.instead)])}});
    numbers.push_back(drop.demonstration);
  }
  out["advice"] = {{"thin", advice.thin}, {"chance", advice.chance}, {"reason", advice.reason}};
  const auto n = r.task.demonstrations.size();
  out["verdict"] = advice.thin       ? "Too thin to call any demonstration wrong."
                   : numbers.empty() ? fmt::format("None of the {} demonstrations looks wrong.", n)
                                     : fmt::format("{} of {} demonstrations look{} wrong: drop {}.", numbers.size(), n,
                                                   numbers.size() == 1 ? "s" : "", fmt::join(numbers, ", "));
}

/// Share of the queries where the regression's strongest class is the model's answer; null where there is none.
Json ridge_agrees(const IclResult& r) {
  if (!r.reading.closed || !r.scores.prediction.defined() || r.reading.task.targets.defined()) {
    return nullptr;
  }
  const auto same = r.scores.prediction.argmax(1).eq(r.reading.log_probabilities.argmax(1));
  return same.to(at::kDouble).mean().item<double>();
}

}  // namespace

Json icl_json(const IclResult& r, bool each_layer) {
  const auto& scores = r.scores;
  Json out{{"task", r.task.name}, {"queries", Json::array()}};
  for (std::size_t j = 0; j < r.task.queries.size(); ++j) {
    const auto row = static_cast<std::int64_t>(j);
    const auto& query = r.task.queries[j];
    Json entry{{"query", j},
               {"input", query.input},
               {"output", query.output ? Json(*query.output) : Json(nullptr)},
               {"prediction", r.reading.predictions[j]},
               {"explained", r.reading.explained[j]},
               {"log-probability", r.reading.explained_log_probability[row].item<double>()}};
    const auto [predicted, explained] = probabilities(r.reading, row);
    entry["probability"] = predicted;
    entry["explained-probability"] = explained;
    if (r.reading.closed) {
      for (std::size_t c = 0; c < r.reading.outputs.size(); ++c) {
        entry["log-probabilities"][r.reading.outputs[c]] =
            r.reading.log_probabilities[row][static_cast<std::int64_t>(c)].item<double>();
      }
    }
    entry["test"] = scores.test.defined() ? list(scores.test[row]) : Json(nullptr);
    if (scores.leave_one_out.defined()) {
      entry["leave-one-out"] = list(scores.leave_one_out[row]);
    }
    if (r.removals) {
      entry["verify"]["log-probability"] = list(r.removals->log_probability[row]);
      if (r.removals->among_outputs.defined()) {
        entry["verify"]["among-outputs"] = list(r.removals->among_outputs[row]);
      }
    }
    out["queries"].push_back(std::move(entry));
  }
  out["closed"] = r.reading.closed;
  out["self"] = list(scores.self);
  out["self-by"] = r.self_by.empty() ? Json(nullptr) : Json(r.self_by);
  out["mean-test"] = scores.test.defined() ? list(scores.test.nanmean(0)) : Json(nullptr);
  if (scores.leave_one_out.defined()) {
    out["mean-leave-one-out"] = list(scores.leave_one_out.nanmean(0));
  }
  if (scores.foretold.defined() && !r.reading.task.targets.defined()) {
    for (std::int64_t i = 0; i < scores.foretold.size(0); ++i) {
      out["foretold"].push_back(list(scores.foretold[i] / static_cast<double>(r.by_layer.size())));
    }
    out["outputs"] = r.reading.outputs;
  }
  add_advice(out, r);
  out["layers"] = r.options.layers;
  out["position"] = word_of(r.options.position);
  for (std::size_t l = 0; each_layer && l < r.by_layer.size(); ++l) {
    auto& layer = out["by-layer"][std::to_string(r.options.layers[l])];
    layer["self"] = list(r.by_layer[l].self);
    for (std::int64_t j = 0; j < scores.test.size(0); ++j) {
      layer["test"].push_back(list(r.by_layer[l].test[j]));
      layer["leave-one-out"].push_back(list(r.by_layer[l].leave_one_out[j]));
    }
  }
  out["template"] = r.task.pattern;
  out["separator"] = r.task.separator;
  out["demonstrations"] = to_json(r.task)["demonstrations"];
  out["prompt-tokens"] = r.reading.prompt_tokens;
  out["ridge-agrees"] = ridge_agrees(r);
  if (!r.by_layer.empty()) {
    double loss = 0;
    for (const auto& layer : r.by_layer) {
      loss += ridge_loss(r.reading.task, layer) / static_cast<double>(r.by_layer.size());
    }
    out["ridge-loss"] = loss;
  }
  if (r.removals) {
    out["verify"] = verified(scores, *r.removals);
  }
  return out;
}

}  // namespace whence::cli
