#include "icl_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "result.h"
#include "whence/core/printable.h"

namespace whence::cli {
namespace {

double largest_of(const std::vector<JsonView>& values) {
  double largest = 1e-300;
  for (const auto& value : values) {
    largest = std::max(largest, value.is_number() ? std::abs(value.get<double>()) : 0);
  }
  return largest;
}

double share_of(const JsonView& value, double largest) { return value.is_number() ? value.get<double>() / largest : 0; }

/// The list's entry; the null that stands for the whole list where there is none.
JsonView entry(const JsonView& list, std::size_t i) { return list.is_null() ? list : list[i]; }

std::string with_probability(const std::string& answer, const JsonView& query, const char* key) {
  return query.contains(key) && query[key].is_number()
             ? fmt::format("{}, {:.0f} %", answer, 100 * query[key].get<double>())
             : answer;
}

std::string query_text(const JsonView& query) {
  auto out = fmt::format("query {}: {} → {}\n", query["query"].get<int>(),
                         printable(one_line(query["input"].get<std::string>(), 60)), printable(answered(query)));
  const auto test = query["test"];
  const auto order = by_help(test);
  if (order.empty()) {
    return out;
  }
  const auto end = [&](std::size_t i, const char* word, bool right) {
    return right ? fmt::format("most {} {} ({})", word, i, value_text(test[i])) : fmt::format("none {}", word);
  };
  return out + fmt::format("     {}, {}\n", end(order.front(), "helpful", test[order.front()].get<double>() > 0),
                           end(order.back(), "harmful", test[order.back()].get<double>() < 0));
}

}  // namespace

std::string value_text(double value) { return fmt::format("{:+.3g}", value); }

std::string value_text(const JsonView& value) { return value.is_number() ? value_text(value.get<double>()) : "-"; }

std::string answered(const JsonView& query) {
  const auto prediction = query["prediction"].get<std::string>();
  const auto text = with_probability(prediction, query, "probability");
  if (query["output"].is_null()) {
    return text;
  }
  const auto expected = query["output"].get<std::string>();
  return text + (expected == prediction
                     ? " (as expected)"
                     : fmt::format(" (expected {})", with_probability(expected, query, "explained-probability")));
}

std::vector<std::size_t> by_help(const JsonView& test) {
  std::vector<std::size_t> order;
  const auto values = test.is_null() ? std::vector<JsonView>() : test.list();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i].is_number()) {
      order.push_back(i);
    }
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return values[a].template get<double>() > values[b].template get<double>(); });
  return order;
}

std::string dropped(const JsonView& json) {
  std::vector<std::string> out;
  for (const auto& drop : json.list("drop")) {
    out.push_back(fmt::format("{} ({})", drop["demonstration"].get<int>(), value_text(drop["self"])));
  }
  return out.empty() ? "none" : fmt::format("{}", fmt::join(out, ", "));
}

std::string reason(const JsonView& json) {
  if (!json.contains("advice")) {
    return "";
  }
  auto out = json["advice"]["reason"].get<std::string>();
  if (json["advice"]["thin"].get<bool>()) {
    return out + ": too thin to call any wrong; give more demonstrations, or ask the model with --verify";
  }
  std::vector<std::string> instead;
  for (const auto& drop : json.list("drop")) {
    if (drop["instead"].is_string()) {
      instead.push_back(fmt::format("{} of {}", drop["instead"].get<std::string>(), drop["demonstration"].get<int>()));
    }
  }
  return instead.empty() ? out : fmt::format("{}, and say {}", out, fmt::join(instead, ", "));
}

std::vector<std::pair<std::string, std::string>> icl_evidence(const JsonView& json) {
  std::vector<std::pair<std::string, std::string>> out;
  if (json.contains("ridge-agrees") && json["ridge-agrees"].is_number()) {
    out.emplace_back("ridge view and model", fmt::format("the same answer for {:.0f} % of the queries",
                                                         100 * json["ridge-agrees"].get<double>()));
  }
  if (json.contains("closed") && !json["closed"].get<bool>() && !json["mean-test"].is_null()) {
    out.emplace_back("outputs that do not repeat",
                     "helpful and harmful say little here; --verify runs the model without each demonstration");
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

std::string icl_text(const JsonView& json, const std::optional<std::string>& kept) {
  const auto demonstrations = json["demonstrations"].list();
  const double largest = largest_of(json.list("mean-test"));
  const auto count = json["queries"].size();
  auto out =
      fmt::format("{}: {} demonstrations in {} tokens, {} quer{}, layers {}, position {}\n",
                  printable(json["task"].get<std::string>()), demonstrations.size(), json["prompt-tokens"].get<int>(),
                  count, count == 1 ? "y" : "ies", json["layers"].dump(), printable(json.value("position", "column")));
  out += fmt::format("{:>4}{:>12}{:>12}  {}\n", "", "helpful", "suspect",
                     "demonstration (helpful > 0: without it the answers are less likely; < 0: harmful)");
  for (std::size_t i = 0; i < demonstrations.size(); ++i) {
    const auto value = entry(json["mean-test"], i);
    const auto text = one_line(demonstrations[i]["input"].get<std::string>(), 72) + " → " +
                      one_line(demonstrations[i]["output"].get<std::string>(), 24);
    out += fmt::format("{:>4}{:>12}{:>12}  {}\n", i, value_text(value), value_text(entry(json["self"], i)),
                       shaded(text, share_of(value, largest)));
  }
  for (const auto& query : json["queries"].list()) {
    out += query_text(query);
  }
  if (json.contains("suspects")) {
    constexpr std::size_t kShown = 5;
    out += "suspects, the least explained first:";
    for (std::size_t k = 0; k < std::min(kShown, json["suspects"].size()); ++k) {
      const auto suspect = json["suspects"][k];
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
                       printable(json["reordered"]["reason"].get<std::string>()));
  }
  if (json.contains("selected")) {
    out += fmt::format("selected of the pool: {}\n", json["selected"]["chosen"].dump());
  }
  for (const auto& [name, value] : icl_evidence(json)) {
    out += fmt::format("{}: {}\n", printable(name), printable(value));
  }
  if (!json.contains("drop") || json["drop"].is_null()) {
    return out;
  }
  out += fmt::format("why: {}\n", printable(reason(json)));
  if (kept && !json["drop"].empty()) {
    out += fmt::format("the prompt without them: {}\n", printable(*kept));
  }
  return out + fmt::format("drop: {}\n", dropped(json));
}

}  // namespace whence::cli
