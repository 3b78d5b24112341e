#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "whence/report/detail/markup.h"

namespace whence::detail {
namespace {

constexpr std::size_t kStageColours = 4;

/// What a bar shows: the removal, which all stages share a unit of, where it is predicted.
double strength(const ExampleCard& card) { return std::abs(card.removal.value_or(card.score)); }

std::string example(const ExampleCard& card, const ScoreWords& words, double help, double largest) {
  const double share = largest > 0 ? strength(card) / largest : 0;
  auto out = content(card.content, fmt::format("Example {}", card.id), words.outcome);
  out += card.label.empty() ? "" : element("div", "class=\"label\"", escape(card.label));
  out += element("div", "class=\"origin\"", card.origin.empty() ? fmt::format("#{}", card.id) : escape(card.origin));
  const auto score = number(card.score, true);
  out += element("div", "class=\"score\"",
                 card.removal ? escape(words.measurement) + " " + number(*card.removal, true) : "score " + score);
  out += element("div", "class=\"bar\"", element("span", fmt::format("style=\"width:{:.1f}%\"", 100 * share), ""));
  if (card.interval) {
    out +=
        element("div", "class=\"raw interval\"",
                fmt::format("90 % {} to {}", number(card.interval->first, true), number(card.interval->second, true)));
  }
  out += card.removal ? element("div", "class=\"raw\"", "score " + score) : "";
  out += card.order_unsure ? element("div", "class=\"raw unsure\"", "~ may as well stand behind the next") : "";
  if (!card.content.shared.empty()) {
    out += element("div", "class=\"raw verbatim\"", "underlined: word for word in the query");
  }
  return element("li", fmt::format("class=\"example {}\"", side_class(help)), out);
}

std::string side(const std::vector<ExampleCard>& examples, const std::string& name, const ScoreWords& words,
                 double help, double largest) {
  const bool wide = std::any_of(examples.begin(), examples.end(), [](const ExampleCard& shown) {
    return !shown.content.text.empty() || !shown.content.tokens.empty() || !shown.content.cells.empty();
  });
  std::string items;
  for (const auto& shown : examples) {
    items += example(shown, words, help, largest);
  }
  const auto list = items.empty() ? element("p", "class=\"none\"", "none")
                                  : element("ol", wide ? "class=\"examples wide\"" : "class=\"examples\"", items);
  const auto title = element("h3", fmt::format("class=\"{}\"", side_class(help)), escape(name));
  return element("section", "class=\"side\"", title + list);
}

double largest_of(const std::vector<ExampleLists>& stages) {
  double largest = 0;
  for (const auto& stage : stages) {
    for (const auto* list : {&stage.helpful, &stage.harmful}) {
      for (const auto& shown : *list) {
        largest = std::max(largest, strength(shown));
      }
    }
  }
  return largest;
}

/// A bar of how much of what moves a query each stage has.
std::string share_bar(const QueryCard& card) {
  if (card.shares.size() < 2 || card.shares.size() != card.stages.size()) {
    return "";
  }
  std::string bar, words;
  for (std::size_t s = 0; s < card.shares.size(); ++s) {
    const double percent = 100 * card.shares[s];
    bar += element("span", fmt::format("class=\"stage-{}\" style=\"width:{:.1f}%\"", s % kStageColours, percent), "");
    words += fmt::format("{}{} {:.0f} %", s > 0 ? ", " : "", escape(card.stages[s].stage), percent);
  }
  return element("div", "class=\"raw\"", "share of influence: " + words) + element("div", "class=\"shares\"", bar);
}

/// A stage's name and where its examples come from, in the colour of its place.
std::string stage_head(const ExampleLists& lists, std::size_t place) {
  const auto name = lists.stage.empty() ? ""
                                        : element("div", fmt::format("class=\"stage stage-{}\"", place % kStageColours),
                                                  escape(lists.stage));
  return name + (lists.source.empty() ? "" : element("div", "class=\"origin\"", escape(lists.source)));
}

}  // namespace

namespace {

std::string subject(const QueryCard& card, const std::vector<Fact>& told, double outcome) {
  auto out = element("h2", "", fmt::format("Query {}", card.id));
  out += content(card.content, fmt::format("Query {}", card.id), outcome);
  out += facts(told) + share_bar(card);
  out += card.origin.empty() ? "" : element("div", "class=\"origin\"", escape(card.origin));
  return element("div", "class=\"subject\"", out);
}

/// The lists of all stages, side by side, on one scale.
std::string stage_lists(const std::vector<ExampleLists>& stages, const ScoreWords& words) {
  const double largest = largest_of(stages);
  std::string out;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const auto& lists = stages[s];
    out += element("div", "class=\"lists\"",
                   stage_head(lists, s) + side(lists.helpful, words.helpful, words, 1, largest) +
                       side(lists.harmful, words.harmful, words, -1, largest));
  }
  return element("div", stages.size() > 1 ? "class=\"stages\"" : "", out);
}

}  // namespace

std::string query_card(const QueryCard& card, const ScoreWords& words) {
  return element("article", fmt::format("class=\"query card\" id=\"query-{}\"", card.id),
                 subject(card, card.facts, words.outcome) + stage_lists(card.stages, words));
}

std::string joint_card(const std::vector<Page>& results, std::size_t query) {
  const QueryCard* first = nullptr;
  std::vector<Fact> told;
  std::string lists;
  for (const auto& result : results) {
    if (query >= result.queries.size()) {
      continue;  // a result of no query: its verdict stands above
    }
    const auto& card = result.queries[query];
    first = first == nullptr ? &card : first;
    for (const auto& fact : card.facts) {
      const bool known = std::any_of(told.begin(), told.end(), [&](const Fact& other) {
        return other.name == fact.name && other.value == fact.value;
      });
      if (!known) {  // their models may differ
        told.push_back({fact.name, fact.value, fact.state, fact.note.empty() ? result.title : fact.note});
      }
    }
    lists += element("h3", "class=\"of-result\"", escape(result.title)) + stage_lists(card.stages, result.words);
  }
  return element("article", fmt::format("class=\"query card\" id=\"query-{}\"", first->id),
                 subject(*first, told, 1) + element("div", "", lists));
}

std::string suspect_section(const std::vector<ExampleLists>& stages, const ScoreWords& words) {
  const double largest = largest_of(stages);
  std::string out;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    out += element(
        "section", "class=\"card suspects\"",
        stage_head(stages[s], s) + side(stages[s].helpful, "left out, their own loss rises most", words, 1, largest));
  }
  return out;
}

std::string query_legend(const ScoreWords& words) {
  const auto falls = [&](double help) { return words.outcome * help > 0 ? "falls" : "rises"; };
  const auto item = [&](double help, const std::string& name) {
    return element("li", "",
                   fmt::format("<span class=\"key {}\"></span>{}: without it the {} {}", side_class(help), escape(name),
                               escape(words.measurement), falls(help)));
  };
  return element("ul", "class=\"legend\"", item(1, words.helpful) + item(-1, words.harmful));
}

}  // namespace whence::detail
