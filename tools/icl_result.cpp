#include "icl_result.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "result.h"
#include "whence/evaluate/statistics.h"
#include "whence/icl/ridge_view.h"

namespace whence::cli {
namespace {

using Json = nlohmann::ordered_json;

std::vector<double> numbers(const at::Tensor& x) {
  const auto flat = x.to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

Json list(const at::Tensor& x) { return x.defined() ? Json(numbers(x)) : Json(nullptr); }

/// The pairs where both are known.
struct Pairs {
  std::vector<double> x, y;
  void add(const at::Tensor& a, const at::Tensor& b) {
    const auto left = numbers(a), right = numbers(b);
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

/// Share of the queries where the regression's strongest class is the model's answer; null where there is none.
Json ridge_agrees(const IclResult& r) {
  if (!r.reading.closed || !r.scores.prediction.defined() || r.reading.task.targets.defined()) {
    return nullptr;
  }
  const auto same = r.scores.prediction.argmax(1).eq(r.reading.log_probabilities.argmax(1));
  return same.to(at::kDouble).mean().item<double>();
}

std::string value_text(const Json& value) {
  return value.is_number() ? fmt::format("{:+.3g}", value.get<double>()) : "-";
}

double largest_of(const Json& values) {
  double largest = 1e-300;
  for (const auto& value : values) {
    largest = std::max(largest, value.is_number() ? std::abs(value.get<double>()) : 0);
  }
  return largest;
}

double share_of(const Json& value, double largest) { return value.is_number() ? value.get<double>() / largest : 0; }

std::string said(const Json& query) {
  auto text = fmt::format("{}", query["prediction"].get<std::string>());
  if (!query["output"].is_null() && query["output"] != query["prediction"]) {
    text += fmt::format(" (expected {})", query["output"].get<std::string>());
  }
  return text;
}

/// The evidence's lines: name and value.
std::vector<std::pair<std::string, std::string>> evidence(const Json& json) {
  std::vector<std::pair<std::string, std::string>> out;
  if (const auto& agrees = json["ridge-agrees"]; agrees.is_number()) {
    out.emplace_back("ridge view and model",
                     fmt::format("the same answer for {:.0f} % of the queries", 100 * agrees.get<double>()));
  }
  if (json.contains("verify")) {
    for (const auto& [score, truths] : json["verify"].items()) {
      for (const auto& [truth, found] : truths.items()) {
        out.emplace_back(fmt::format("{} against removal, {}", score, truth),
                         fmt::format("Pearson {}, Spearman {}, mean of the queries' Spearman {}; {} pairs",
                                     value_text(found["pearson"]), value_text(found["spearman"]),
                                     value_text(found["mean-spearman-of-queries"]), found["pairs"].get<int>()));
      }
    }
  }
  return out;
}

}  // namespace

nlohmann::ordered_json icl_json(const IclResult& r, bool each_layer) {
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
  out["self"] = list(scores.self);
  out["mean-test"] = scores.test.defined() ? list(scores.test.nanmean(0)) : Json(nullptr);
  if (scores.leave_one_out.defined()) {
    out["mean-leave-one-out"] = list(scores.leave_one_out.nanmean(0));
  }
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

std::string icl_text(const nlohmann::ordered_json& json) {
  const auto& demonstrations = json["demonstrations"];
  const double largest = largest_of(json["mean-test"]);
  auto out = fmt::format("{}: {} demonstrations in {} tokens, {} quer{}, layers {}, position {}\n",
                         json["task"].get<std::string>(), demonstrations.size(), json["prompt-tokens"].get<int>(),
                         json["queries"].size(), json["queries"].size() == 1 ? "y" : "ies", json["layers"].dump(),
                         json.value("position", "column"));
  out += fmt::format("{:>4}{:>12}{:>12}  {}\n", "", "test, mean", "self", "demonstration (test > 0: it helps)");
  for (std::size_t i = 0; i < demonstrations.size(); ++i) {
    const auto& value = json["mean-test"].is_null() ? json["mean-test"] : json["mean-test"][i];
    const auto text = one_line(demonstrations[i]["input"].get<std::string>(), 72) + " → " +
                      one_line(demonstrations[i]["output"].get<std::string>(), 24);
    out +=
        fmt::format("{:>4}{:>12}{:>12}  {}\n", i, value_text(value),
                    json["self"].is_null() ? "-" : value_text(json["self"][i]), shaded(text, share_of(value, largest)));
  }
  for (const auto& query : json["queries"]) {
    const auto& test = query["test"];
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < test.size(); ++i) {
      if (test[i].is_number()) {
        order.push_back(i);
      }
    }
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return test[a] > test[b]; });
    out +=
        fmt::format("query {}: {} → {}, log-probability {}\n", query["query"].get<int>(),
                    one_line(query["input"].get<std::string>(), 60), said(query), value_text(query["log-probability"]));
    if (!order.empty()) {
      out += fmt::format("     helps most {} ({}), hurts most {} ({})\n", order.front(),
                         value_text(test[order.front()]), order.back(), value_text(test[order.back()]));
    }
  }
  if (json.contains("suspects")) {
    constexpr std::size_t kShown = 5;
    out += "suspects, the least explained first:";
    for (std::size_t k = 0; k < std::min(kShown, json["suspects"].size()); ++k) {
      const auto& suspect = json["suspects"][k];
      out += fmt::format("{} {} ({})", k == 0 ? "" : ",", suspect["demonstration"].get<int>(),
                         value_text(suspect["self"]));
    }
    out += "\n";
  }
  if (json.contains("curated")) {
    out += fmt::format("curated: {}\n", json["curated"].dump());
  }
  if (json.contains("reordered")) {
    out += fmt::format("reordered: {}: {}\n", json["reordered"]["order"].dump(),
                       json["reordered"]["reason"].get<std::string>());
  }
  if (json.contains("selected")) {
    out += fmt::format("selected of the pool: {}\n", json["selected"]["chosen"].dump());
  }
  for (const auto& [name, value] : evidence(json)) {
    out += fmt::format("{}: {}\n", name, value);
  }
  return out;
}

Page icl_page(const nlohmann::ordered_json& json) {
  Page page;
  page.title = fmt::format("What the demonstrations of “{}” do", json["task"].get<std::string>());
  page.subtitle =
      fmt::format("{} demonstrations in {} tokens, layers {}, position {}", json["demonstrations"].size(),
                  json["prompt-tokens"].get<int>(), json["layers"].dump(), json.value("position", "column"));
  page.footer = "Made by whence. Scores are influences on the ridge regression that the hidden states imply.";
  page.warnings = json["warnings"].get<std::vector<std::string>>();
  for (const auto& [name, value] : evidence(json)) {
    page.evidence.push_back({name, value});
  }
  for (const char* key : {"model", "dtype", "method", "kernel", "lambda", "self-lambda", "position", "targets"}) {
    if (json["options"].contains(key)) {
      page.evidence.push_back({key, json["options"][key].get<std::string>()});
    }
  }
  const auto card = [&](const std::string& title, const Json& test, const Json* query) {
    PromptCard out{.title = title};
    for (std::size_t i = 0; i < test.size(); ++i) {
      const auto& demonstration = json["demonstrations"][i];
      PromptPart part{.number = static_cast<std::int64_t>(i),
                      .text = demonstration["input"].get<std::string>(),
                      .answer = demonstration["output"].get<std::string>(),
                      .score = test[i].is_number() ? test[i].get<double>() : 0};
      if (query == nullptr && !json["self"].is_null()) {
        part.note = "self " + value_text(json["self"][i]);
      }
      if (query != nullptr && query->contains("leave-one-out")) {
        part.note = "leave-one-out " + value_text((*query)["leave-one-out"][i]);
      }
      if (query != nullptr && query->contains("verify")) {
        part.note += ", removed " + value_text((*query)["verify"]["log-probability"][i]);
      }
      out.parts.push_back(std::move(part));
    }
    if (query != nullptr) {
      out.question = (*query)["input"].get<std::string>();
      out.answer = said(*query);
    }
    return out;
  };
  if (json["mean-test"].is_null()) {
    return page;
  }
  page.prompts.push_back(card("All queries, on average", json["mean-test"], nullptr));
  for (const auto& query : json["queries"]) {
    page.prompts.push_back(card(fmt::format("Query {}", query["query"].get<int>()), query["test"], &query));
  }
  return page;
}

}  // namespace whence::cli
