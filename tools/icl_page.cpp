#include <fmt/format.h>

#include <algorithm>

#include "icl_result.h"
#include "icl_text.h"

namespace whence::cli {
namespace {

double number_or(const JsonView& value, double otherwise) {
  return value.is_number() ? value.get<double>() : otherwise;
}

/// Each demonstration once, with what all queries make of it.
std::vector<PromptPart> parts_of(const JsonView& json) {
  std::vector<PromptPart> out;
  const auto demonstrations = json["demonstrations"].list();
  for (std::size_t i = 0; i < demonstrations.size(); ++i) {
    PromptPart part{.number = static_cast<std::int64_t>(i),
                    .text = demonstrations[i]["input"].get<std::string>(),
                    .answer = demonstrations[i]["output"].get<std::string>()};
    if (!json["mean-test"].is_null() && json["mean-test"][i].is_number()) {
      part.score = json["mean-test"][i].get<double>();
    }
    for (const auto& query : json["queries"].list()) {
      if (!query["test"].is_null()) {
        part.by_query.push_back(number_or(query["test"][i], 0));
      }
    }
    if (!json["self"].is_null()) {
      part.note = "suspect " + value_text(json["self"][i]);
    }
    out.push_back(std::move(part));
  }
  for (const auto& drop : json.list("drop")) {
    const auto number = drop["demonstration"].get<std::uint64_t>();
    if (number >= out.size()) {
      drop["demonstration"].refuse(fmt::format("one of {} demonstrations", out.size()));
    }
    auto& part = out[number];
    part.drop = true;
    part.instead = drop["instead"].is_string() ? drop["instead"].get<std::string>() : "";
  }
  return out;
}

PromptQuestion question_of(const JsonView& query) {
  constexpr std::size_t kShown = 3;
  PromptQuestion out{.number = query["query"].get<std::int64_t>(), .text = query["input"].get<std::string>()};
  const auto probability = [&](const char* key) {
    return query.contains(key) && query[key].is_number() ? fmt::format(", {:.0f} %", 100 * query[key].get<double>())
                                                         : "";
  };
  const auto prediction = query["prediction"].get<std::string>();
  const bool known = !query["output"].is_null();
  const bool right = known && query["output"] == query["prediction"];
  out.facts.push_back({"predicts", prediction + probability("probability"),
                       !known  ? Fact::State::kPlain
                       : right ? Fact::State::kGood
                               : Fact::State::kBad});
  if (known && !right) {
    out.facts.push_back({"expected", query["output"].get<std::string>() + probability("explained-probability")});
  }
  const auto test = query["test"];
  const auto order = by_help(test);
  const auto take = [&](auto begin, auto end, double sign, auto& list) {
    for (auto at = begin; at != end && list.size() < kShown && sign * test[*at].template get<double>() > 0; ++at) {
      list.emplace_back(static_cast<std::int64_t>(*at), test[*at].template get<double>());
    }
  };
  take(order.begin(), order.end(), 1, out.helpful);
  take(order.rbegin(), order.rend(), -1, out.harmful);
  if (query.contains("verify")) {
    const auto removed = by_help(query["verify"]["log-probability"]);
    if (!removed.empty()) {
      const auto said = [&](std::size_t i) {
        return fmt::format("without {}: {}", i, value_text(-number_or(query["verify"]["log-probability"][i], 0)));
      };
      out.facts.push_back({"log-probability, run again", said(removed.front()) + ", " + said(removed.back())});
    }
  }
  return out;
}

}  // namespace

Page icl_page(const JsonView& json) {
  Page page;
  page.title = fmt::format("What the demonstrations of “{}” do", json["task"].get<std::string>());
  page.subtitle =
      fmt::format("{} demonstrations in {} tokens, {} quer{}", json["demonstrations"].size(),
                  json["prompt-tokens"].get<int>(), json["queries"].size(), json["queries"].size() == 1 ? "y" : "ies");
  page.footer = "Made by whence. Scores are influences on the ridge regression that the hidden states imply.";
  page.warnings = json["warnings"].get<std::vector<std::string>>();
  if (json.contains("verdict")) {
    page.verdict.value = json["verdict"].get<std::string>();
    page.verdict.state = json["advice"]["thin"].get<bool>() ? Fact::State::kWarning
                         : json["drop"].empty()             ? Fact::State::kGood
                                                            : Fact::State::kBad;
    page.evidence.push_back({"why", reason(json)});
  }
  for (const auto& [name, value] : icl_evidence(json)) {
    page.evidence.push_back({name, value});
  }
  const auto options = json["options"];
  page.evidence.push_back({"layers, position", json["layers"].dump() + ", " + json.value("position", "column")});
  const auto given =
      options.contains("defaults") ? options["defaults"].get<std::vector<std::string>>() : std::vector<std::string>{};
  for (const char* key : {"model", "preset", "method", "kernel", "lambda", "self-lambda", "targets"}) {
    const bool usual = std::find(given.begin(), given.end(), key) != given.end();
    if (options.contains(key) && options[key].is_string() && !usual) {
      page.evidence.push_back({key, options[key].get<std::string>()});
    }
  }
  PromptCard card{.parts = parts_of(json), .questions = {}, .drop = {}};
  for (const auto& drop : json.list("drop")) {
    card.drop.push_back(drop["demonstration"].get<std::int64_t>());
  }
  for (const auto& query : json["queries"].list()) {
    card.questions.push_back(question_of(query));
  }
  page.prompt = std::move(card);
  return page;
}

std::vector<QueryCard> icl_cards(const JsonView& json) {
  const auto demonstrations = json["demonstrations"].list();
  std::vector<QueryCard> out;
  for (const auto& query : json["queries"].list()) {
    const auto asked = question_of(query);
    QueryCard card{.id = asked.number, .facts = asked.facts, .content = {.text = asked.text}};
    ExampleLists lists{.source = "demonstrations of the prompt"};
    for (const auto& [found, list] : {std::pair(&asked.helpful, &lists.helpful), {&asked.harmful, &lists.harmful}}) {
      for (const auto& [number, score] : *found) {
        const auto& shown = demonstrations.at(static_cast<std::size_t>(number));
        list->push_back({.id = number,
                         .origin = fmt::format("demonstration {}", number),
                         .label = shown["output"].get<std::string>(),
                         .score = score,
                         .content = {.text = shown["input"].get<std::string>()}});
      }
    }
    card.stages.push_back(std::move(lists));
    out.push_back(std::move(card));
  }
  return out;
}

}  // namespace whence::cli
